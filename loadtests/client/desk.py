"""Sends requests at their times and hands in their records. Knows who is where, and with which key."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b

import orjson

from loadtests.client import asking
from loadtests.client.answer import Answer
from loadtests.client.wire import Left, Patience, Read, Wire, blocking
from loadtests.record import Arrival, Kind, Record
from loadtests.scenario import Stream
from loadtests.schedule import aborts, home
from loadtests.targets import Country, Organisation, Targets

PATIENCE_S = 5.0
"""Beyond the country's own deadline: an answer that comes with it is still an answer."""
PACE_S = 0.05
"""How long a client takes a token to take, who waits for a whole body and leaves halfway."""
_NOBODY = Organisation(id="")

Sink = Callable[[Record], None]


@dataclass(frozen=True, slots=True)
class Clock:
    """The run's time, from the machine's monotonic clock."""

    zero: float

    def now(self) -> float:
        """Seconds since the run began; negative before."""
        return time.monotonic() - self.zero


class Desk:
    """Sends what it is asked to, for all users of one process.

    ``late`` is told by how much each request's turn came too late, in seconds: the generator's own fault, unlike the
    time that a connection or a full socket takes.
    """

    def __init__(
        self,
        targets: Targets,
        clock: Clock,
        sink: Sink,
        *,
        read: Read = blocking,
        late: Callable[[float], None] = lambda _: None,
        exact: bool = True,
        salt: int = 0,
    ) -> None:
        self.clock = clock
        self.salt = salt
        self.in_flight = 0
        self.sent = 0
        self._waiting: dict[int, float] = {}
        self._sink = sink
        self._late = late
        self._exact = exact
        self._sides = {side.name: side for side in targets.sides}
        self._places = {(side.name, one.code): one for side in targets.sides for one in side.countries}
        self._wires = {place: Wire(one.origin, one.ca, read) for place, one in self._places.items()}

    def country(self, arrival: Arrival) -> Country:
        return self._places[arrival.side, arrival.country]

    def ask(self, arrival: Arrival, stream: Stream, said: Sequence[asking.Message] = ()) -> Answer:
        """Send one request at its time, read the answer, and hand in the record.

        The body and the connection are made ready before: neither is what a waiting user waits for. Raises
        :class:`~loadtests.client.wire.Left` when the run ends meanwhile; a request that was sent is handed in first.
        """
        self._waiting[arrival.serial] = arrival.at
        overdue = self.clock.now() - arrival.at
        country = self.country(arrival)
        who = self._who(arrival, country)
        wire = self._wires[arrival.side, arrival.country]
        asked = asking.question(arrival, country.model, exact=self._exact, said=said, salt=self.salt)
        body = orjson.dumps({**asked.fields, **stream.sampling})
        request = wire.head(asked.path, who.key, len(body)) + body
        answer = Answer(stream=asked.stream)
        try:
            sock = wire.connect()
        except OSError as error:
            self._wait(arrival.at)
            answer.blame("tls" if isinstance(error, ssl.SSLError) else "no-connection", time.monotonic())
            answer.terminals = 1
            self._is_sent(arrival)
            self._hand_in(arrival, who, answer, self.clock.now())
            return answer
        try:
            self._late(self._wait(arrival.at) if overdue < 0 else overdue)
            with suppress(OSError):  # asked on all the same, and so recorded as lost
                sock = wire.fresh(sock)
        except Left:
            sock.close()
            raise
        self._send(sock, request, arrival, who, answer, self._patience(arrival, country, stream, asked.stream))
        return answer

    def close(self) -> None:
        for wire in self._wires.values():
            wire.close()

    def overdue(self, since: float) -> int:
        """How many requests were to be sent before ``since`` and are not."""
        return sum(at <= since for at in self._waiting.values())

    def _is_sent(self, arrival: Arrival) -> None:
        self.sent += 1
        del self._waiting[arrival.serial]

    def _send(
        self, sock: socket.socket, request: bytes, arrival: Arrival, who: Organisation, answer: Answer, wait: Patience
    ) -> None:
        self.in_flight += 1
        self._is_sent(arrival)
        sent = time.monotonic()
        try:
            sent = self._wires[arrival.side, arrival.country].ask(sock, request, answer, wait)
        finally:
            self.in_flight -= 1
            self._hand_in(arrival, who, answer, sent - self.clock.zero)

    def _wait(self, at: float) -> float:
        """Until then. Returns how much later it became; 0 where it was past when it began, which is not our fault."""
        left_s = at - self.clock.now()
        if left_s <= 0:
            return 0.0
        time.sleep(left_s)
        return max(0.0, self.clock.now() - at)

    def _patience(self, arrival: Arrival, country: Country, stream: Stream, streamed: bool) -> Patience:
        now = time.monotonic()
        until = now + country.slo.request_s + PATIENCE_S
        share = aborts(arrival, stream)
        if share is None:
            return Patience(until)
        enough = share * arrival.output_tokens
        return (
            Patience(until, events=max(1, round(enough))) if streamed else Patience(until, leaves=now + enough * PACE_S)
        )

    def _who(self, arrival: Arrival, country: Country) -> Organisation:
        """Whose key is shown."""
        if arrival.kind is not Kind.FOREIGN:
            return _member(country, arrival.organisation) or _NOBODY
        holders = _holders(home(arrival, self._sides[arrival.side]))
        return holders[arrival.serial % len(holders)]

    def _hand_in(self, arrival: Arrival, who: Organisation, answer: Answer, sent: float) -> None:
        self._sink(record_of(arrival, who.service_class, answer, sent, self.clock.zero))


def record_of(arrival: Arrival, service_class: str, answer: Answer, sent: float, zero: float) -> Record:
    """What is kept of a request. ``sent`` is in the run's time, whose zero is ``zero`` on the answer's clock."""
    first_tokens, gaps = answer.pace.counted(answer.output_tokens)
    text = "".join(answer.text)
    return Record(
        serial=arrival.serial,
        phase=arrival.phase,
        side=arrival.side,
        country=arrival.country,
        organisation=arrival.organisation,
        service_class=service_class,
        kind=arrival.kind,
        intended=arrival.at,
        sent=sent,
        first=None if answer.first is None else answer.first - zero,
        ended=(sent + zero if answer.ended is None else answer.ended) - zero,
        outcome=answer.outcome,
        status=answer.status,
        code=answer.code,
        retry_after_s=answer.retry_after_s,
        prompt_tokens=answer.prompt_tokens,
        cached_tokens=answer.cached_tokens,
        output_tokens=answer.output_tokens,
        finish_reason=answer.finish_reason,
        gaps=gaps,
        terminals=answer.terminals,
        said_country=answer.header(b"x-domicile-country"),
        request_id=answer.header(b"x-request-id"),
        asked_tokens=arrival.output_tokens,
        first_tokens=first_tokens,
        events=answer.pace.events,
        text_digest=blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest() if text else "",
    )


def _member(country: Country, id: str) -> Organisation | None:
    return next((one for one in country.organisations if one.id == id), None)


def _holders(country: Country) -> list[Organisation]:
    return [one for one in country.organisations if one.key]
