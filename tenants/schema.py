"""``tenants/schema.json``, made from the models so that editors complete and check a ``tenant.yaml``.

``python -m tenants.schema`` writes it; ``--check`` exits with 1 when it is stale.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pydantic import BaseModel

from tenants.country import Country

PATH = Path(__file__).with_name("schema.json")


def render(model: type[BaseModel] = Country) -> str:
    """The schema as text, the same for the same models."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(path: Path = PATH, model: type[BaseModel] = Country, module: str = "tenants.schema") -> int:
    """Write the schema, or compare it with the one on disk."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=f"Write {path.name}.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    if parser.parse_args().check:
        fresh = path.is_file() and path.read_text(encoding="utf-8") == render(model)
        if not fresh:
            print(f"{path} is stale: run python -m {module}")
        return 0 if fresh else 1
    path.write_text(render(model), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
