"""``scenarios/schema.json``, made from the models so that editors complete and check a scenario.

``python -m loadtests.schema`` writes it; ``--check`` exits with 1 when it is stale.
"""

from __future__ import annotations

from loadtests.scenario import SCENARIOS, Scenario
from tenants import schema

PATH = SCENARIOS / "schema.json"


def render() -> str:
    """The schema as text, the same for the same models."""
    return schema.render(Scenario)


if __name__ == "__main__":
    raise SystemExit(schema.main(PATH, Scenario, "loadtests.schema"))
