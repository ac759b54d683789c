"""The open-loop pump: sends what the schedule names when the schedule says, whatever became of the rest.

A slow service must not slow its clients down, or the queue that it makes is never seen (coordinated omission: Tene,
"How NOT to Measure Latency"; Schroeder et al., "Open Versus Closed", NSDI 2006). So every session has a greenlet of
its own, and latencies count from the time at which a request was to be sent.
"""

from __future__ import annotations

import gc
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, count
from operator import attrgetter
from typing import Any

import gevent
from gevent.pool import Group

from loadtests import traces
from loadtests.client.answer import Answer
from loadtests.client.desk import Desk
from loadtests.client.meter import Meter
from loadtests.client.wire import Left
from loadtests.planning import draws
from loadtests.record import Arrival, Kind, Outcome
from loadtests.scenario import Stream
from loadtests.schedule import SIDE_SERIALS, Loop, Schedule, Span
from loadtests.users import READY_S, LlmUser

LEAD_S = 0.25
"""How long before its time a request is made ready: its body written, its connection opened."""
OVERDUE_S = 0.05
"""From when on a request that was not sent counts as behind."""
GONE_S = 0.5
"""How long a user in a closed loop waits before it asks again a service that is not there."""


class _Leave(Left, gevent.GreenletExit):  # type: ignore[misc] # gevent has no annotations
    """So that gevent does not report a greenlet which was told to leave."""


class Generator:
    """One process's share of a run: every ``of``-th arrival and closed-loop user, from ``index`` on."""

    def __init__(
        self, schedule: Schedule, desk: Desk, users: Mapping[Kind, LlmUser], meter: Meter, index: int = 0, of: int = 1
    ) -> None:
        self._schedule = schedule
        self._desk = desk
        self._users = users
        self._meter = meter
        self._arrivals = schedule.arrivals[index::of]
        self._members = [
            (loop, number) for loop in schedule.loops for number in range(loop.users) if number % of == index
        ]
        self._begun = 0
        self._sessions = Group()
        self._halted = False

    def run(self, drain_s: float) -> None:
        """Send everything, wait up to ``drain_s`` for the last answers, and leave those that have not come by then."""
        # What is here now stays; a collection that walks through all of it would take longer than a token.
        gc.collect()
        gc.freeze()
        beat = gevent.spawn(self._meter.beat, gevent.sleep)
        try:
            for loop, number in self._members:
                self._spawn(self._loop, loop, number)
            spans = Spans(self._schedule.phases)
            for arrival in self._arrivals:
                self._sleep_until(arrival.at - LEAD_S)
                if self._halted:
                    return
                self._begun += 1
                stream = self._schedule.stream_of(arrival)
                self._spawn(self._session, arrival, stream, spans.end(arrival))
            self._sleep_until(self._schedule.duration_s)
            self._sessions.join(timeout=drain_s)
        finally:
            self.halt()
            beat.kill()

    def halt(self) -> None:
        """Leave whatever is under way; it is recorded as aborted. Nothing is sent any more."""
        self._halted = True
        self._sessions.kill(_Leave, block=True, timeout=10)

    def figures(self) -> dict[str, float]:
        """How it does, for a sample: read once a second, since lag counts from the last reading."""
        overdue = self._desk.clock.now() - OVERDUE_S
        unbegun = max(0, bisect_right(self._arrivals, overdue, key=attrgetter("at")) - self._begun)
        return {
            **self._meter.read(),
            "in_flight": self._desk.in_flight,
            "sent": self._desk.sent,
            "behind": 0 if self._halted else unbegun + self._desk.overdue(overdue),
        }

    def _session(self, arrival: Arrival, stream: Stream, until: float) -> Answer:
        return self._users[arrival.kind].session(self._desk, arrival, stream, until)

    def _loop(self, loop: Loop, number: int) -> None:
        """One user of a closed loop."""
        self._sleep_until(loop.begin)
        draw = traces.lengths(loop.stream.lengths, random.Random(f"{loop.serials.start % SIDE_SERIALS} {number}"))
        member = _member(loop, number)
        for turn in count():
            due = self._desk.clock.now() + READY_S
            if due >= loop.end:
                return
            prompt, output = next(draw)
            arrival = Arrival(
                serial=loop.serials[(turn * loop.users + number) * loop.stream.turns],
                at=due,
                phase=loop.phase,
                side=loop.side,
                country=loop.country,
                organisation=loop.organisations[member],
                kind=loop.stream.kind,
                prompt_tokens=prompt,
                output_tokens=output,
                shared_tokens=int(prompt * draws.shared_share(loop.stream)),
                prefix=loop.prefixes[member],
            )
            answer = self._session(arrival, loop.stream, loop.end)
            # Where nobody is there, asking again at once would be a storm of its own.
            gevent.sleep(loop.think_s if answer.outcome is not Outcome.FAILED else max(loop.think_s, GONE_S))

    def _sleep_until(self, at: float) -> None:
        left_s = at - self._desk.clock.now()
        if left_s > 0:
            gevent.sleep(left_s)

    def _spawn(self, run: Callable[..., Any], *given: Any) -> None:
        self._sessions.spawn(_unless_left, run, *given)


class Spans:
    """Where a session has to end: a side's slice is over, or its phase."""

    def __init__(self, phases: Sequence[Span]) -> None:
        self._spans = phases

    def end(self, arrival: Arrival) -> float:
        for span in self._spans:
            if span.side == arrival.side and span.begin <= arrival.at < span.end:
                return span.end
        return arrival.at


def _member(loop: Loop, number: int) -> int:
    """Which organisation a user belongs to: the users are divided by the organisations' shares."""
    place = (number + 0.5) / loop.users
    reached = accumulate(loop.shares)
    return next((member for member, share in enumerate(reached) if place <= share), len(loop.shares) - 1)


def _unless_left(run: Callable[..., Any], *given: Any) -> None:
    try:
        run(*given)
    except Left:
        return
