"""The ways to ask for an answer of a given shape: ``response_format``, ``text.format``, ``structured_outputs``."""

from __future__ import annotations

from serving.errors import Reason, Refused
from serving.gateway.openai.checks import (
    Table,
    boolean,
    check_members,
    nullable,
    one_of,
    string,
    wrong_value,
)
from serving.gateway.openai.grammars import check_choice, check_grammar, check_regex
from serving.gateway.openai.limits import Limits
from serving.gateway.openai.schemas import check_schema, check_schema_or_text

_TYPES = ("text", "json_object", "json_schema")
_NAME = string(64)


def _schema(value: object, param: str, limits: Limits) -> None:
    # Callers are told which field of the request holds the schema, not where the schema starts in it.
    check_schema(value, "response_format" if param.startswith("response_format") else "text.format")


JSON_SCHEMA: Table = {
    "name": _NAME,
    "description": nullable(string(empty=True)),
    "schema": _schema,
    "strict": nullable(boolean),
}


def _json_schema(value: object, param: str, limits: Limits) -> None:
    check_members(value, param, JSON_SCHEMA, limits, "name", "schema")


_PLAIN: Table = {"type": one_of(*_TYPES)}
_NESTED: Table = {**_PLAIN, "json_schema": _json_schema}
_FLAT: Table = {**_PLAIN, **JSON_SCHEMA}


def response_format(value: object, param: str, limits: Limits) -> None:
    """Chat completions: ``{"type": "json_schema", "json_schema": {"name", "schema"}}``."""
    _check_format(value, param, limits, _NESTED, "json_schema")


def text_format(value: object, param: str, limits: Limits) -> None:
    """Responses: ``{"type": "json_schema", "name", "schema"}``."""
    _check_format(value, param, limits, _FLAT, "name", "schema")


def _check_format(value: object, param: str, limits: Limits, table: Table, *required: str) -> None:
    with_schema = isinstance(value, dict) and value.get("type") == "json_schema"
    check_members(value, param, table if with_schema else _PLAIN, limits, "type", *(required if with_schema else ()))


TEXT: Table = {"format": nullable(text_format), "verbosity": nullable(one_of("low", "medium", "high"))}


def text(value: object, param: str, limits: Limits) -> None:
    check_members(value, param, TEXT, limits)


def _json_object(value: object, param: str, limits: Limits) -> None:
    boolean(value, param, limits)
    if not value:
        raise wrong_value(param, "true")


CONSTRAINTS: Table = {
    "json": check_schema_or_text,
    "regex": check_regex,
    "grammar": check_grammar,
    "choice": check_choice,
    "json_object": _json_object,
}


def structured_outputs(value: object, param: str, limits: Limits) -> None:
    """vLLM's extension: exactly one constraint. Its other knobs are not offered."""
    if len(check_members(value, param, CONSTRAINTS, limits)) != 1:
        raise wrong_value(param, " | ".join(CONSTRAINTS))


def check_one_shape(fields: dict[str, object]) -> None:
    """Refuse two shapes at once: vLLM refuses them too, later and less clearly."""
    text = fields.get("text")
    rivals = (
        fields.get("response_format"),
        text.get("format") if isinstance(text, dict) else None,
        isinstance(fields.get("tool_choice"), dict) or None,
    )
    if fields.get("structured_outputs") is not None and any(rival is not None for rival in rivals):
        raise Refused(Reason.UNSUPPORTED_PARAMETER, param="structured_outputs")
