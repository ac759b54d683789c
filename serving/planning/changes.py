"""What differs between two policies, value by value. Pure, and total: no field can be left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from serving.planning.nouns import Change, Policy

ORDER = "models (their order)"
_ABSENT = "\0"
"""No key has this value: files with a NUL are refused."""


def changes(before: Policy, after: Policy) -> tuple[Change, ...]:
    """Every value that differs, by its place in the file. Models are told apart by their ids, not by their order."""
    found = list(_between("", _by_id(before), _by_id(after)))
    was, is_ = _order(before), _order(after)
    kept = set(was) & set(is_)
    if [id for id in was if id in kept] != [id for id in is_ if id in kept]:
        found.append(Change(ORDER, list(was), list(is_)))
    return tuple(found)


def _between(path: str, before: JsonValue, after: JsonValue) -> Iterator[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            place = f"{path}{key}" if key.startswith("[") else f"{path}.{key}"
            yield from _between(place.removeprefix("."), before.get(key, _ABSENT), after.get(key, _ABSENT))
    elif _text(before) != _text(after):
        yield Change(path, _shown(before), _shown(after))


def _text(value: JsonValue) -> str:
    # In Python 1 equals true and 1.0, which a file tells apart.
    return json.dumps(value, sort_keys=True)


def _shown(value: JsonValue) -> JsonValue:
    return None if value == _ABSENT else value


def _by_id(policy: Policy) -> dict[str, JsonValue]:
    models = policy.get("models")
    if not isinstance(models, list):
        return dict(policy)
    return {**policy, "models": {f"[{model['id']}]": model for model in models if isinstance(model, Mapping)}}


def _order(policy: Policy) -> tuple[str, ...]:
    models = policy.get("models")
    return tuple(str(model["id"]) for model in models if isinstance(model, Mapping)) if isinstance(models, list) else ()
