"""What a run will send, and when: a scenario and its targets, turned into one list before anything is sent.

Nothing here depends on how the service answers, and the same arguments always make the same schedule.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter

from loadtests.planning.arrivals import zipf
from loadtests.planning.draws import SESSIONS, Conditions, Draw, draws, skew_of
from loadtests.planning.fitting import check, names
from loadtests.record import OURS, Arrival
from loadtests.scenario import Phase, Scenario, Stream
from loadtests.targets import Country, Side, Targets

SIDE_SERIALS = 1 << 48
"""Serials of one side. A request and its like on another side differ by a multiple of it."""
STREAM_SERIALS = 1 << 32
"""Serials of one stream in one country and phase."""
_LEAVES = (0.1, 0.9)
"""Shares of an answer between which a client leaves that does not stay."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the run that belongs to one phase and one side. With two sides, a phase has several of each."""

    name: str
    side: str
    begin: float
    end: float
    judged: bool


@dataclass(frozen=True, slots=True)
class Loop:
    """A closed loop within one span: so many users, each of whom asks again when it was answered."""

    side: str
    country: str
    phase: str
    begin: float
    end: float
    users: int
    think_s: float
    stream: Stream
    organisations: tuple[str, ...]
    shares: tuple[float, ...]
    """How its users are divided among the organisations; sums to 1."""
    prefixes: tuple[int, ...]
    """``Arrival.prefix`` of each organisation."""
    serials: range
    """What its requests may be called, and nothing else is."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that a run sends."""

    arrivals: tuple[Arrival, ...]
    """Open loop, by time. Of a session this is the first turn; its serial plus n is kept free for turn n."""
    loops: tuple[Loop, ...]
    phases: tuple[Span, ...]
    """By time, without gaps."""
    duration_s: float
    streams: tuple[Stream, ...] = field(repr=False)

    def stream_of(self, arrival: Arrival) -> Stream:
        """What an arrival, a later turn of its session, or a request of a loop is part of."""
        return self.streams[arrival.serial % SIDE_SERIALS // STREAM_SERIALS]


def make(scenario: Scenario, targets: Targets, seed: int, capacity: Mapping[str, float]) -> Schedule:
    """The schedule of a run. ``capacity``: requests a second by country code, for rates that are relative to it.

    With two sides each phase is cut into slices of at most ``targets.slice_s`` that the sides take in turn. Each side
    gets the whole phase: the same arrivals, at the same times of its own slices.

    Raises:
        tenants.errors.TenantError: the scenario asks for what the targets do not have, or a trace cannot be used.
    """
    check(scenario, targets, capacity)
    arrivals: list[Arrival] = []
    loops: list[Loop] = []
    streams: list[Stream] = []
    places = tuple(_places(scenario, targets))
    for place in places:
        for position, stream in enumerate(place.phase.traffic):
            for country in scenario.countries:
                source = _Source(place, position, stream, country, len(streams), names(scenario, stream.organisations))
                streams.append(stream)
                if stream.arrivals.users is not None:
                    loops += source.loops(targets, stream.arrivals.users)
                    continue
                conditions = _conditions(scenario, place.phase, stream, _home_side(targets, country), capacity)
                drawn = draws(
                    stream, source.organisations, conditions, f"{seed}/{place.phase.name}/{position}/{country}"
                )
                arrivals += source.arrivals(targets, drawn)
    spans = sorted((span for place in places for side in place.spans for span in side), key=attrgetter("begin"))
    arrivals.sort(key=attrgetter("at", "serial"))
    return Schedule(tuple(arrivals), tuple(loops), tuple(spans), spans[-1].end, tuple(streams))


def aborts(arrival: Arrival, stream: Stream) -> float | None:
    """After which share of its answer a request's client leaves; ``None`` if it stays. The same on every side."""
    rng = random.Random(f"abort {arrival.serial % SIDE_SERIALS}")
    return rng.uniform(*_LEAVES) if rng.random() < stream.abort_share else None


def home(arrival: Arrival, side: Side) -> Country:
    """Whose key a foreign request carries: always the same other country's than the one that it is sent to."""
    others = [country for country in side.countries if country.code != arrival.country]
    return others[arrival.serial % SIDE_SERIALS % len(others)]


@lru_cache(maxsize=4096)
def prefix_of(side: str, country: str, organisation: str, position: int | str) -> int:
    """Which prefix an organisation's requests share within a stream, known by its position in its phase.

    Two sides never share one: what the first left in a cache that stands behind both would make the second look fast.
    """
    digest = hashlib.sha256(f"{side}/{country}/{organisation}/{position}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a phase lies in the run: the spans of each side, in the order of the targets."""

    phase: Phase
    spans: tuple[tuple[Span, ...], ...]

    def put(self, side: int, at: float) -> float:
        """The run's time of what is due ``at`` seconds after the phase's beginning, on that side."""
        spans = self.spans[side]
        each = self.phase.duration_s / len(spans)
        number = min(int(at / each), len(spans) - 1)
        due = spans[number].begin + max(at - number * each, 0.0)
        return min(due, math.nextafter(spans[number].end, 0.0))


def _places(scenario: Scenario, targets: Targets) -> Iterator[_Place]:
    begin, count = 0.0, len(targets.sides)
    for phase in scenario.phases:
        slices = count if count == 1 else count * math.ceil(phase.duration_s / targets.slice_s)
        edges = [begin + phase.duration_s * count * number / slices for number in range(slices + 1)]
        yield _Place(
            phase,
            tuple(
                tuple(
                    Span(phase.name, side.name, edges[turn], edges[turn + 1], phase.judged)
                    for turn in range(number, slices, count)
                )
                for number, side in enumerate(targets.sides)
            ),
        )
        begin = edges[-1]


@dataclass(frozen=True, slots=True)
class _Source:
    """One stream of one phase in one country."""

    place: _Place
    position: int
    stream: Stream
    country: str
    number: int
    organisations: tuple[str, ...]

    def loops(self, targets: Targets, users: int) -> Iterator[Loop]:
        """One for each span; the serials of a side are divided among its spans."""
        for number, side in enumerate(targets.sides):
            spans = self.place.spans[number]
            each = (STREAM_SERIALS - 1) // len(spans)
            for place, span in enumerate(spans):
                first = number * SIDE_SERIALS + self.number * STREAM_SERIALS + 1 + place * each
                yield Loop(
                    side=side.name,
                    country=self.country,
                    phase=span.name,
                    begin=span.begin,
                    end=span.end,
                    users=users,
                    think_s=self.stream.arrivals.think_s,
                    stream=self.stream,
                    organisations=self.organisations,
                    shares=tuple(zipf(len(self.organisations), skew_of(self.stream))),
                    prefixes=tuple(
                        prefix_of(side.name, self.country, one, self.position) for one in self.organisations
                    ),
                    serials=range(first, first + each),
                )

    def arrivals(self, targets: Targets, drawn: Iterator[Draw]) -> Iterator[Arrival]:
        """Each draw once for every side."""
        waits = self.stream.kind in SESSIONS
        first = self.number * STREAM_SERIALS + 1
        sessions: dict[str, int] = {}
        for count, draw in enumerate(drawn):
            own = first + count * (self.stream.turns if waits else 1)
            session = sessions.setdefault(draw.session, own) if draw.session else own if waits else 0
            for number, side in enumerate(targets.sides):
                base = number * SIDE_SERIALS
                yield Arrival(
                    serial=base + own,
                    at=self.place.put(number, draw.at),
                    phase=self.place.phase.name,
                    side=side.name,
                    country=self.country,
                    organisation=draw.organisation,
                    kind=self.stream.kind,
                    prompt_tokens=draw.prompt_tokens,
                    output_tokens=draw.output_tokens,
                    session=base + session if session else 0,
                    turn=draw.turn,
                    shared_tokens=draw.shared_tokens,
                    prefix=prefix_of(side.name, self.country, draw.organisation, self.position),
                )


def _home_side(targets: Targets, country: str) -> Country:
    """The country as the system under test has it, whose clock the day's curve follows."""
    side = next((side for side in targets.sides if side.name == OURS), targets.sides[0])
    return next(one for one in side.countries if one.code == country)


def _conditions(
    scenario: Scenario, phase: Phase, stream: Stream, country: Country, capacity: Mapping[str, float]
) -> Conditions:
    given = stream.arrivals
    rate, until = given.rate, given.until_rate
    if given.load is not None:
        whole = capacity.get(country.code) or scenario.capacity.rate or math.nan
        rate = given.load * whole
        until = None if given.until_load is None else given.until_load * whole
    return Conditions(rate, until, phase.duration_s, country.time_zone)
