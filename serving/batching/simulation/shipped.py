"""Where simulations come from: those that are shipped, by name, and anybody's own, by path."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from serving.batching.simulation.scenario import Scenario, Site
from tenants.document import find_shipped, read_as, shipped_in
from tenants.registry import find_country

SCENARIOS = Path(__file__).parents[1] / "scenarios"
_WINTER_DAY = datetime(2026, 1, 15)
"""On which a country's clocks are read: a fixed one, so that a scenario is the same in summer."""


def shipped() -> dict[str, Path]:
    """The scenarios that come with the distribution, by name."""
    return shipped_in(SCENARIOS)


def load_scenario(name_or_path: str, countries: Path) -> Scenario:
    """A scenario that is shipped, by name, or any file, by path, with nothing left open.

    Args:
        countries: folders with a ``tenant.yaml``, which say what a scenario leaves out about a country.

    Raises:
        TenantError: with all its problems.
    """
    scenario = read_as(Scenario, find_shipped(name_or_path, SCENARIOS), "the scenario")
    return scenario.model_copy(update={"countries": tuple(_complete(site, countries) for site in scenario.countries)})


def _complete(site: Site, countries: Path) -> Site:
    if site.slo is not None and site.utc_offset_h is not None:
        return site
    country = find_country(countries, site.code)
    offset = ZoneInfo(country.time_zone).utcoffset(_WINTER_DAY)
    own = {"slo": country.slo, "utc_offset_h": offset.total_seconds() / 3600 if offset else 0.0}
    given = {name: value for name in own if (value := getattr(site, name)) is not None}
    return site.model_copy(update={**own, **given})
