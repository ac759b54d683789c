"""Carry a request to the chosen replica and its answer back, as bytes.

A replica that cannot be reached, or is lost before the first byte of its answer, has served nothing: another one of
the same country is asked instead. One that is lost later ends the stream with an error, which ``steps/resume`` may
mend.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Set
from contextlib import aclosing
from dataclasses import replace
from itertools import count
from math import ceil
from time import monotonic, time

from serving.engine.turnaway import OVER_SHARE, Turnaway
from serving.engine.turnaway import read as read_turnaway
from serving.errors import OVERLOADED_RETRY_AFTER_S, DomicileError, Failed, Reason, Refused
from serving.placement import Replica
from serving.records.telemetry.trace import Attempt
from serving.replicas.cell import stopped_by, stranger_in
from serving.replicas.claim import HEADER, LIFETIME_S, CellKey, Claim
from serving.replicas.errand import Errand
from serving.replicas.table import Table
from serving.replicas.upstream import Broken, Exchange, Late, Rejected, Unreachable, Upstream
from serving.types import SPENT, TOKENIZE, Caller, Prompt, Usage

MAX_ATTEMPTS = 4
MAX_LOST = 2
"""Replicas that may be lost before they answer a request: it may be the request that ends them."""
USAGE_TIMEOUT_S = 2.0
RETRY_AFTER_S = 5
"""Serve notices a dead replica within seconds and starts another; a caller that waits this long loses little."""
_BYTES_PER_TOKEN = 4
_SERVICE_UNAVAILABLE = 503
_TURNED_AWAY = (Reason.RATE_LIMIT_EXCEEDED, Reason.SERVER_IS_OVERLOADED)

Choose = Callable[[Caller, Prompt, Set[str]], Replica | None]
"""Who serves best, of those whose ids are not in the set."""


class Relay:
    """Serves the requests of one country from its own replicas."""

    def __init__(self, choose: Choose, table: Table, upstream: Upstream, key: CellKey, country: str) -> None:
        self._choose = choose
        self._table = table
        self._upstream = upstream
        self._key = key
        self._country = country
        self._serial = count()

    def __call__(self, errand: Errand) -> AsyncGenerator[bytes, None]:
        """The engine's answer: in pieces of whatever size they come where it streams, else in one.

        Raises:
            Rejected: the engine refused the request.
            Failed: no replica can serve, or the one that did was lost halfway.
        """
        prompt = errand.prompt
        return self._carried(errand, prompt.endpoint.value, prompt.body, prompt.stream)

    async def tokens(self, errand: Errand, asked: bytes) -> int:
        """How many tokens there are in what ``asked``, a body for ``/tokenize``, holds. Raises as the answer does."""
        aside = replace(errand, tried=dict(errand.tried), served=[])
        async with aclosing(self._carried(aside, TOKENIZE, asked, stream=False)) as answer:
            return int(json.loads(await anext(answer))["count"])

    async def usage(self, errand: Errand) -> Usage | None:
        """What the engine that has, or had, the answer counted; ``None`` where it cannot be asked, or forgot."""
        replica = errand.at
        if replica is None:
            return None
        aside = replace(errand, ends=monotonic() + USAGE_TIMEOUT_S)
        try:
            with await self._asked(replica, aside, SPENT, b"") as exchange:
                return Usage(**json.loads(await exchange.whole()))
        except (Unreachable, Broken, Rejected):
            return None

    async def _carried(self, errand: Errand, path: str, body: bytes, stream: bool) -> AsyncGenerator[bytes, None]:
        failure: Exception = self._failed(Reason.COUNTRY_UNAVAILABLE, RETRY_AFTER_S)
        tried = errand.tried
        lost = 0
        while len(tried) < MAX_ATTEMPTS and lost < MAX_LOST and monotonic() < errand.ends:
            replica = self._choose(errand.caller, errand.prompt, tried.keys())
            if replica is None:
                break
            tried[replica.id] = replica
            started = False
            try:
                sent = self._table.serving(replica, len(body) // _BYTES_PER_TOKEN)
                with (
                    Attempt(len(tried)) as attempt,
                    sent,
                    await self._asked(replica, errand, path, body, attempt.traceparent) as exchange,
                ):
                    if not stream:
                        whole = await exchange.whole()
                        errand.served.append(replica)
                        yield whole
                        return
                    while data := await exchange.read():
                        if not started:
                            started = True
                            errand.served.append(replica)
                        yield data
                    return
            except Unreachable:
                self._table.avoid(replica)
            except Late as error:
                reason = Reason.STREAM_INTERRUPTED if started else Reason.SERVER_IS_OVERLOADED
                raise self._failed(reason, OVERLOADED_RETRY_AFTER_S) from error
            except Broken as error:
                self._table.avoid(replica)
                lost += 1
                if started:
                    raise self._failed(Reason.STREAM_INTERRUPTED) from error
            except Rejected as rejected:
                if (turnaway := read_turnaway(rejected.status, rejected.body)) is not None:
                    failure = _sooner(failure, self._turned_away(turnaway))
                elif (stranger := stranger_in(rejected.body)) is not None:
                    # Seen there before it was seen here. It stops the whole cell: no other replica is asked.
                    raise stopped_by(stranger) from rejected
                elif rejected.status == _SERVICE_UNAVAILABLE:
                    failure = self._failed(Reason.SERVER_IS_OVERLOADED, OVERLOADED_RETRY_AFTER_S)
                elif rejected.status < 500:
                    raise
                else:
                    failure = rejected
                    lost += 1
        raise failure

    async def _asked(self, replica: Replica, errand: Errand, path: str, body: bytes, trace: str = "") -> Exchange:
        """An exchange whose answer's head has come and is good. Who finishes it early aborts the generation."""
        exchange = await self._upstream.connect(replica.address)
        try:
            try:
                await self._ask(exchange, errand, path, body, trace)
            except Broken as error:
                if exchange.fresh or isinstance(error, Late):
                    raise
                exchange.finish()
                exchange = await self._again(replica)
                await self._ask(exchange, errand, path, body, trace)
            if exchange.status != 200:
                raise Rejected(exchange.status, await exchange.whole(), replica.context_length)
        except BaseException:
            exchange.finish()
            raise
        return exchange

    async def _again(self, replica: Replica) -> Exchange:
        """A new connection, where a pooled one was found to have been closed meanwhile."""
        try:
            return await self._upstream.connect(replica.address, fresh=True)
        except Unreachable as error:
            # Somebody did listen there until this request came.
            raise Broken(str(error)) from error

    async def _ask(self, exchange: Exchange, errand: Errand, path: str, body: bytes, trace: str = "") -> None:
        now, left_s = time(), errand.ends - monotonic()
        claim = self._key.sign(
            Claim(
                country=errand.caller.country,
                organisation=errand.caller.organisation,
                request_id=f"{errand.request_id}.{next(self._serial)}",
                service_class=errand.caller.service_class,
                path=path,
                deadline=now + left_s,
                expiry=now + LIFETIME_S,
                weight=errand.caller.weight,
                trace=trace,
            )
        )
        head = (
            f"POST {path} HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json\r\n"
            f"x-request-id: {errand.request_id}\r\n{HEADER}: {claim}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        await exchange.ask(head.encode("ascii"), body, left_s)

    def _turned_away(self, turnaway: Turnaway) -> DomicileError:
        """What the caller is told when no other replica takes the request either."""
        seconds = max(1, ceil(turnaway.retry_after_s))
        if turnaway.status == OVER_SHARE:
            return Refused(Reason.RATE_LIMIT_EXCEEDED, retry_after_s=seconds)
        return self._failed(Reason.SERVER_IS_OVERLOADED, seconds)

    def _failed(self, reason: Reason, retry_after_s: int | None = None) -> Failed:
        return Failed(reason, retry_after_s=retry_after_s, country=self._country.upper())


def _sooner(one: Exception, other: DomicileError) -> Exception:
    """Of two replicas that turned a request away, the one to come back to first."""
    if isinstance(one, DomicileError) and one.reason in _TURNED_AWAY and one.retry_after_s is not None:
        return min(one, other, key=lambda error: error.retry_after_s or 0)
    return other
