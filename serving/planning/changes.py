"""What differs between two policies, value by value. Pure, and total: no field can be left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from serving.planning.nouns import Change, Policy


def changes(before: Policy, after: Policy) -> tuple[Change, ...]:
    """Every value that differs, by its place in the file. Models are told apart by their ids, not by their order."""
    return tuple(_between("", _by_id(before), _by_id(after)))


def _between(path: str, before: JsonValue, after: JsonValue) -> Iterator[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            yield from _between(f"{path}.{key}" if path else key, before.get(key), after.get(key))
    # As text: in Python 1 equals true and 1.0, which a file tells apart.
    elif repr(before) != repr(after):
        yield Change(path, before, after)


def _by_id(policy: Policy) -> dict[str, JsonValue]:
    """With models as a mapping from id, and the order in which they stand beside it."""
    models = policy.get("models")
    if not isinstance(models, list):
        return dict(policy)
    named = {str(model["id"]): model for model in models if isinstance(model, Mapping)}
    return {**policy, "models": {f"[{id}]": model for id, model in named.items()}, "models order": list(named)}
