"""Whether a scenario can be played against the targets: everything that it names is there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from loadtests.record import Kind
from loadtests.scenario import Scenario, Stream
from loadtests.targets import Country, Side, Targets
from tenants.errors import Problem, TenantError, suggestion


def check(scenario: Scenario, targets: Targets, capacity: Mapping[str, float]) -> None:
    """Raises :class:`tenants.errors.TenantError` with everything that is missing, each said once."""
    problems = [*_countries(scenario, targets), *_organisations(scenario, targets), *_capacities(scenario, capacity)]
    if problems:
        raise TenantError(Path(scenario.name), dict.fromkeys(problems))


def names(scenario: Scenario, group: str) -> tuple[str, ...]:
    """What the organisations of a group are called: ``id-1``, ``id-2``, …, or just ``id`` where there is one."""
    count = next(one.count for one in scenario.organisations if one.id == group)
    return (group,) if count == 1 else tuple(f"{group}-{number}" for number in range(1, count + 1))


def _streams(scenario: Scenario) -> Iterator[tuple[str, Stream]]:
    for number, phase in enumerate(scenario.phases):
        for position, stream in enumerate(phase.traffic):
            yield f"phases[{number}].traffic[{position}]", stream


def _countries(scenario: Scenario, targets: Targets) -> Iterator[Problem]:
    for side in targets.sides:
        known = {country.code for country in side.countries}
        for code in scenario.countries:
            if code not in known:
                near = suggestion(code, known) or f"; it has {', '.join(sorted(known))}"
                yield Problem("countries", f"the side '{side.name}' of the targets has no country '{code}'{near}")
    for country in (country for side in targets.sides for country in side.countries):
        if not _is_zone(country.time_zone):
            yield Problem("countries", f"the targets give '{country.code}' an unknown time zone '{country.time_zone}'")


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _organisations(scenario: Scenario, targets: Targets) -> Iterator[Problem]:
    """An endpoint without organisations asks for no key: it takes any."""
    for where, stream in _streams(scenario):
        wanted = names(scenario, stream.organisations)
        for side in targets.sides:
            if stream.kind is Kind.FOREIGN:
                if len(side.countries) < 2:
                    yield Problem(where, f"a foreign key needs a second country, and the side '{side.name}' has one")
                continue
            for country in side.countries:
                held = {organisation.id for organisation in country.organisations}
                missing = [name for name in wanted if held and name not in held]
                if missing and country.code in scenario.countries:
                    yield Problem(f"{where}.organisations", _lacks(country, side, missing, held))


def _lacks(country: Country, side: Side, missing: list[str], held: set[str]) -> str:
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    near = suggestion(missing[0], held)
    said = ", ".join(missing[:3]) + more
    return f"the targets hold no key of {said} for '{country.code}' of the side '{side.name}'{near}"


def _capacities(scenario: Scenario, capacity: Mapping[str, float]) -> Iterator[Problem]:
    for code, rate in capacity.items():
        if not (math.isfinite(rate) and rate > 0):
            yield Problem("capacity", f"of '{code}' must be a rate above 0 (given: {rate})")
    if scenario.capacity.rate is not None:
        return
    for where, stream in _streams(scenario):
        if stream.arrivals.load is not None:
            for code in scenario.countries:
                if code not in capacity:
                    yield Problem(
                        f"{where}.arrivals.load",
                        f"is a share of the capacity of '{code}', which is not known: measure it first, "
                        "or give capacity.rate",
                    )
