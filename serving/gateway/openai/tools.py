"""Tools a caller offers to the model: functions only, named simply, with bounded parameter schemas."""

from __future__ import annotations

import re

from serving.errors import Reason, Refused
from serving.gateway.openai.checks import (
    Check,
    Table,
    boolean,
    check_array,
    check_members,
    integer,
    members,
    nullable,
    one_of,
    string,
    unsupported,
    wrong_type,
    wrong_value,
)
from serving.gateway.openai.limits import Limits
from serving.gateway.openai.schemas import check_schema

MAX_TOOLS = 128
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MODE = one_of("none", "auto", "required")


def _parameters(value: object, param: str, limits: Limits) -> None:
    check_schema(value, _tool_of(param))


def _name(value: object, param: str, limits: Limits) -> None:
    if type(value) is not str or not NAME.fullmatch(value):
        raise Refused(Reason.INVALID_TOOL, param=_tool_of(param), expected=f"name: {NAME.pattern}")


def _kind(value: object, param: str, limits: Limits) -> None:
    if value != "function":
        raise Refused(Reason.INVALID_TOOL, param=_tool_of(param), expected="type: function")


def _tool_of(param: str) -> str:
    """``tools[3].function.name`` belongs to ``tools[3]``, which is what a caller is told about."""
    return param[: param.index("]") + 1]


FUNCTION: Table = {
    "name": _name,
    "description": nullable(string(empty=True)),
    "parameters": nullable(_parameters),
    "strict": nullable(boolean),
}


def _function(value: object, param: str, limits: Limits) -> None:
    check_members(value, param, FUNCTION, limits, "name")


CHAT_TOOL: Table = {"type": _kind, "function": _function}
RESPONSES_TOOL: Table = {
    **FUNCTION,
    "type": _kind,
    "allowed_callers": unsupported,
    "async": unsupported,
    "defer_loading": unsupported,
    "output_schema": unsupported,
}


def tools(table: Table, *required: str) -> Check:
    """A check of the list of tools, each after ``table``."""

    def check(value: object, param: str, limits: Limits) -> None:
        for index, tool in enumerate(check_array(value, param, MAX_TOOLS, empty=table is RESPONSES_TOOL)):
            path = f"{param}[{index}]"
            # The type first: a tool of another type has fields of its own, and none of them is what is wrong.
            _kind(tool.get("type") if isinstance(tool, dict) else None, path, limits)
            check_members(tool, path, table, limits, *required)

    return check


def check_tool_choice(fields: dict[str, object]) -> None:
    """Check ``tool_choice`` beside the tools it chooses from, in the shape of either endpoint."""
    choice = fields.get("tool_choice")
    if choice is None or choice == "none":
        return
    offered = fields.get("tools")
    if not isinstance(offered, list) or not offered:
        raise Refused(Reason.MISSING_REQUIRED_PARAMETER, param="tools")
    if isinstance(choice, dict) and _named(choice) not in {_named(tool) for tool in offered}:
        raise wrong_value("tool_choice", "tools[*].name")


def tool_choice(table: Table, *required: str) -> Check:
    def check(value: object, param: str, limits: Limits) -> None:
        if isinstance(value, dict):
            if value.get("type") in _FOREIGN_CHOICES:
                raise Refused(Reason.UNSUPPORTED_PARAMETER, param=param)
            check_members(value, param, table, limits, *required)
        elif isinstance(value, str):
            _MODE(value, param, limits)
        else:
            raise wrong_type(value, param, "string | object")

    return check


def _named(tool: dict[str, object]) -> object:
    function = tool.get("function", tool)
    return function.get("name") if isinstance(function, dict) else None


_FOREIGN_CHOICES = ("allowed_tools", "custom")
_NAMED: Table = {"name": string(64)}
CHAT_FIELDS: Table = {
    "tools": nullable(tools(CHAT_TOOL, "type", "function")),
    "tool_choice": nullable(
        tool_choice({"type": one_of("function"), "function": members(_NAMED, "name")}, "type", "function")
    ),
    "parallel_tool_calls": nullable(boolean),
}
RESPONSES_FIELDS: Table = {
    "tools": tools(RESPONSES_TOOL, "type", "name"),
    "tool_choice": tool_choice({"type": one_of("function"), **_NAMED}, "type", "name"),
    "parallel_tool_calls": nullable(boolean),
    "max_tool_calls": nullable(integer(1, MAX_TOOLS)),
}
