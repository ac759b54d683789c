"""Which faults a run has, where and when: decided before it begins, from its scenario and its seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from loadtests.mischief.faults import ProxyProcess, proxy_process
from loadtests.mischief.inventory import NoSuchTarget
from loadtests.record import OURS
from loadtests.scenario import SCENARIOS, Fault, Phase, Scenario
from loadtests.schedule import Schedule, Span
from loadtests.targets import Country, Side, Targets
from tenants.errors import Problem, TenantError

LINK = frozenset({"latency", "slice", "stall", "reset", "half-close"})
PROCESSES = frozenset({"replica", "gateway", "raylet", "database"})
_OF_PROCESSES = frozenset({"kill", "stop", "terminate"})
_RANDOM = (
    ("kill", "replica"),
    ("terminate", "replica"),
    ("stop", "replica"),
    ("kill", "gateway"),
    ("stop", "gateway"),
    ("stop", "raylet"),
    ("lock", "database"),
)
LOOPBACK = "127.0.0.1"
_RANDOM_HOLD_S = (0.5, 3.0)
"""Shorter than what Ray takes for a node's death."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault, with its time and its draw."""

    at: float
    """Seconds since the run began."""
    phase: str
    action: str
    target: str
    country: str
    for_s: float | None = None
    draw: int = 0
    """Which one, where there are several: the draw modulo their number."""


def faults_of(schedule: Schedule, scenario: Scenario, seed: int) -> tuple[Planned, ...]:
    """The faults of a run, by time: those that its phases describe, and those that they leave to the seed.

    A fault's time counts within the slices of the side under test. Raises :class:`tenants.errors.TenantError` for
    faults that cannot be: beyond their phase's end, or of a thing that does not have them.
    """
    problems = [
        Problem(f"phases.{phase.name}.faults[{at}]", complaint)
        for phase in scenario.phases
        for at, fault in enumerate(phase.faults)
        if (complaint := _complaint(fault, phase, scenario))
    ]
    if problems:
        raise TenantError(SCENARIOS / f"{scenario.name}.yaml", problems)
    planned = [one for phase in scenario.phases for one in _of_phase(phase, schedule, scenario, seed)]
    return tuple(sorted(planned, key=lambda one: one.at))


def _of_phase(phase: Phase, schedule: Schedule, scenario: Scenario, seed: int) -> Iterator[Planned]:
    mine = (span for span in schedule.phases if span.name == phase.name and span.side == OURS)
    spans = sorted(mine, key=lambda span: span.begin)
    draws = random.Random(f"{seed}:{phase.name}:faults")
    for fault in [*phase.faults, *_drawn(phase, scenario, draws)]:
        yield Planned(
            at=_moment(fault.at_s, spans),
            phase=phase.name,
            action=fault.action,
            target=_target(fault),
            country=fault.country or scenario.countries[0],
            for_s=fault.for_s,
            draw=draws.randrange(2**31),
        )


def _drawn(phase: Phase, scenario: Scenario, draws: random.Random) -> Iterator[Fault]:
    for _ in range(phase.random_faults):
        action, target = draws.choice(_RANDOM)
        yield Fault.model_validate(
            {
                "at_s": phase.duration_s * draws.uniform(0.1, 0.9),
                "action": action,
                "target": target,
                "country": draws.choice(scenario.countries),
                "for_s": draws.uniform(*_RANDOM_HOLD_S) if action in ("stop", "lock") else None,
            }
        )


def _moment(at_s: float, spans: Sequence[Span]) -> float:
    left = at_s
    for span in spans:
        if left <= span.end - span.begin:
            return span.begin + left
        left -= span.end - span.begin
    return spans[-1].end


def _target(fault: Fault) -> str:
    """What is meant, where the action leaves no choice."""
    if fault.action == "roll-out":
        return "country"
    if fault.target != "replica":
        return fault.target
    return "client-link" if fault.action in LINK else "database" if fault.action == "lock" else fault.target


def _complaint(fault: Fault, phase: Phase, scenario: Scenario) -> str:
    target = _target(fault)
    if fault.at_s > phase.duration_s:
        return f"at_s is {fault.at_s:g}, and the phase ends after {phase.duration_s:g} s"
    if fault.country is not None and fault.country not in scenario.countries:
        return f"{fault.country} is not among the run's countries ({', '.join(scenario.countries)})"
    if fault.action in LINK and target != "client-link":
        return f"{fault.action} is a link's fault, and a {target} is none: its target is client-link"
    if fault.action == "lock" and target != "database":
        return f"a {target} cannot be locked, only a database"
    if fault.action in _OF_PROCESSES and target not in PROCESSES:
        return f"a {target} is no process and cannot be told to {fault.action}"
    return ""


@contextmanager
def linked(
    targets: Targets, planned: Sequence[Planned], seed: int
) -> Iterator[tuple[Targets, dict[str, ProxyProcess]]]:
    """The targets with a fault proxy before every country of ours whose link is to fail, and those proxies.

    Raises :class:`NoSuchTarget` for a link over TLS, whose certificate would not be the proxy's.
    """
    wanted = {one.country for one in planned if one.target == "client-link"}
    proxies: dict[str, ProxyProcess] = {}
    with ExitStack() as leaving:

        def behind(country: Country) -> Country:
            host, port = _plain(country)
            proxies[country.code] = leaving.enter_context(proxy_process(host, port, seed=seed))
            return country.model_copy(update={"base_url": f"http://{LOOPBACK}:{proxies[country.code].port}/v1"})

        def mended(side: Side) -> Side:
            countries = tuple(behind(each) if each.code in wanted else each for each in side.countries)
            return side.model_copy(update={"countries": countries})

        sides = tuple(mended(side) if side.name == OURS else side for side in targets.sides)
        yield targets.model_copy(update={"sides": sides}), proxies


def _plain(country: Country) -> tuple[str, int]:
    """Where it listens without TLS."""
    parts = urlsplit(country.origin)
    if parts.scheme != "http" or parts.hostname is None:
        raise NoSuchTarget(f"the link to {country.code} is TLS; a link can be made to fail over plain http only")
    return parts.hostname, parts.port or 80
