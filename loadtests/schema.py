"""``scenarios/schema.json``, made from the models so that editors complete and check a scenario.

``python -m loadtests.schema`` writes it; ``--check`` exits with 1 when it is stale.
"""

from __future__ import annotations

import argparse
import json

from loadtests.scenario import SCENARIOS, Scenario

PATH = SCENARIOS / "schema.json"


def render() -> str:
    """The schema as text, the same for the same models."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Scenario.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the schema, or compare it with the one on disk."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.schema", description="Write scenarios/schema.json.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    if parser.parse_args().check:
        fresh = PATH.is_file() and PATH.read_text(encoding="utf-8") == render()
        if not fresh:
            print(f"{PATH} is stale: run python -m loadtests.schema")
        return 0 if fresh else 1
    PATH.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
