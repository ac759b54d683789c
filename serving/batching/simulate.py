"""The batching core in virtual time: the same policy, step planning and step-time model, around simulated engines.

Nothing here reads a clock or draws from a shared source of chance: the same scenario gives the same result, to the
byte. What differs from the engine is said in :mod:`serving.batching.simulation.engine`; besides, prompts share no
prefixes, and the way from the caller to the replica takes as long as the scenario says, whatever the load.
"""

from __future__ import annotations

from serving.batching.simulation.country import Country
from serving.batching.simulation.judge import CountryResult, Result, judge
from serving.batching.simulation.scenario import Scenario, Site


def simulate(scenario: Scenario) -> Result:
    """Run every country to the end of everything that was asked in it. They share nothing, so one after the other."""
    return Result(
        scenario=scenario.name,
        seed=scenario.seed,
        scheduler=scenario.scheduler,
        duration_s=scenario.duration_s,
        countries=tuple(_result(scenario, site) for site in scenario.countries),
    )


def _result(scenario: Scenario, site: Site) -> CountryResult:
    country = Country(scenario, site)
    country.run()
    return judge(country)
