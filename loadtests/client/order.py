"""What a load generator is told to do, by its options or by the master that it works for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from loadtests import schedule
from loadtests.planning.arrivals import zipf
from loadtests.planning.fitting import names
from loadtests.record import OURS
from loadtests.scenario import SCENARIOS, Scenario, load_scenario
from loadtests.schedule import STREAM_SERIALS, Loop, Schedule, Span
from loadtests.targets import Targets, read_targets
from tenants.errors import Problem, TenantError

CAPACITY = "capacity"
"""The phase in which the capacity is measured."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an order comes to."""

    scenario: Scenario
    targets: Targets
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that, with the files it names, decides what is sent: the same for all workers of a run."""

    scenario: str
    targets: str
    seed: int | None = None
    """The scenario's own when left out."""
    capacity: Mapping[str, float] = field(default_factory=dict)
    only_capacity: bool = False
    exact: bool = True
    """Ask for answers of exact lengths, by vLLM's extensions of the API."""

    @classmethod
    def of(cls, options: Any) -> Self:
        """Raises :class:`tenants.errors.TenantError` for options that say too little or make no sense."""
        problems = [
            Problem("", f"--{name} is needed: {what}")
            for name, what in (("scenario", "a shipped one's name, or a file"), ("targets", "a file, who is asked"))
            if not getattr(options, name)
        ]
        if problems:
            raise TenantError(Path("locustfile.py"), problems)
        return cls(
            scenario=options.scenario,
            targets=options.targets,
            # The web page's form says nothing with an empty text.
            seed=None if options.seed in (None, "") else int(options.seed),
            capacity=read_capacity(options.capacity or ()),
            only_capacity=options.only_capacity,
            exact=not options.plain_openai,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def read(self) -> tuple[Scenario, Targets]:
        """The two files. Raises :class:`tenants.errors.TenantError` with what is wrong with them."""
        return load_scenario(self.scenario), read_targets(Path(self.targets))

    def seed_of(self, scenario: Scenario) -> int:
        return scenario.seed if self.seed is None else self.seed

    def plan(self) -> Plan:
        """Raises :class:`tenants.errors.TenantError` for files that are wrong or do not suit each other."""
        scenario, targets = self.read()
        if self.only_capacity:
            return Plan(scenario, targets, capacity_schedule(scenario, targets))
        return Plan(scenario, targets, schedule.make(scenario, targets, self.seed_of(scenario), self.capacity))


def read_capacity(pairs: Sequence[str] | str) -> dict[str, float]:
    """``ee=12.5 lv=3`` as a mapping. Raises :class:`tenants.errors.TenantError`."""
    found, problems = {}, []
    for pair in pairs.split() if isinstance(pairs, str) else pairs:
        code, _, rate = pair.partition("=")
        try:
            found[code] = float(rate)
        except ValueError:
            problems.append(Problem("--capacity", f"'{pair}' is not COUNTRY=REQUESTS_PER_SECOND, as in ee=12.5"))
    if problems:
        raise TenantError(Path("locustfile.py"), problems)
    return found


def capacity_schedule(scenario: Scenario, targets: Targets) -> Schedule:
    """A closed loop in each country that finds how much it can do, with the traffic that is relative to that."""
    side = next((one for one in targets.sides if one.name == OURS), targets.sides[0]).name
    relative = (
        (phase.name, position, stream)
        for phase in scenario.phases
        for position, stream in enumerate(phase.traffic)
        if stream.arrivals.load is not None
    )
    found = next(relative, None)
    if found is None:
        problem = Problem("phases", "nothing in it is relative to the capacity, so there is none to be measured")
        raise TenantError(SCENARIOS / scenario.name, [problem])
    _, position, stream = found
    members, span = names(scenario, stream.organisations), scenario.capacity.duration_s
    loops = tuple(
        Loop(
            side=side,
            country=country,
            phase=CAPACITY,
            begin=0.0,
            end=span,
            users=scenario.capacity.users,
            think_s=0.0,
            stream=stream,
            organisations=members,
            shares=tuple(zipf(len(members), 0.0)),
            prefixes=tuple(schedule.prefix_of(side, country, one, position) for one in members),
            serials=range(number * STREAM_SERIALS + 1, (number + 1) * STREAM_SERIALS),
        )
        for number, country in enumerate(scenario.countries)
    )
    return Schedule((), loops, (Span(CAPACITY, side, 0.0, span, False),), span, (stream,) * len(loops))
