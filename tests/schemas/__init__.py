"""The shapes that OpenAI's clients are promised, distilled from the published documents.

Chat completions, completions, models and errors are from OpenAI's OpenAPI document
(github.com/openai/openai-openapi), Responses and their events from Open Responses (openresponses.org, 2026-04-24).
Only structure is kept: types, required fields, enumerations, which field may be null. Unknown fields are allowed, as
in the documents. A ``$comment`` says where a file departs from them. ``networkpolicy`` is of Kubernetes' document.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

Schema = dict[str, Any]


@cache
def _schemas() -> dict[str, Schema]:
    return {path.stem: json.loads(path.read_text()) for path in Path(__file__).parent.glob("*.json")}


@cache
def _registry() -> Registry[Any]:
    resources = [(f"{name}.json", Resource.from_contents(schema)) for name, schema in _schemas().items()]
    return Registry().with_resources(resources)


def check(name: str, payload: object) -> None:
    """Raise :class:`AssertionError` with everything about ``payload`` that the schema ``name`` does not allow."""
    schema = _schemas()[name]
    if "oneOf" in schema:
        schema = _branch(schema, payload)
    validator = Draft202012Validator(schema, registry=_registry())
    violations = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(payload)]
    assert not violations, f"not a valid {name}:\n" + "\n".join(violations)


def _branch(schema: Schema, payload: object) -> Schema:
    """The branch that ``type`` discriminates, so that a violation is named and not lost among all branches'."""
    kind = payload.get("type") if isinstance(payload, dict) else None
    branches: list[Schema] = schema["oneOf"]
    found = [branch for branch in branches if kind in branch["properties"]["type"]["enum"]]
    assert len(found) == 1, f"no such type: {kind}"
    return found[0]
