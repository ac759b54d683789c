"""The conversation of a chat completion: who said what, which tools were called, which pictures were shown."""

from __future__ import annotations

import re

from serving.errors import Reason, Refused
from serving.gateway.openai.checks import (
    Check,
    Table,
    array,
    check_array,
    check_members,
    nullable,
    one_of,
    string,
    unsupported,
    wrong_type,
    wrong_value,
)
from serving.gateway.openai.images import check_total
from serving.gateway.openai.limits import Limits
from serving.gateway.openai.parts import ASSISTANT, TEXT, USER, Parts, check_content
from serving.gateway.openai.strict_json import check_embedded

MAX_MESSAGES = 2048
MAX_TOOL_CALLS = 128

_NAME = re.compile(r"[^\s<|\\/>]{1,64}")


def _name(value: object, param: str, limits: Limits) -> None:
    string(64)(value, param, limits)
    if not _NAME.fullmatch(str(value)):
        raise wrong_value(param, f"^{_NAME.pattern}$")


def _later(value: object, param: str, limits: Limits) -> None:
    """Content and role are read by the message as a whole."""


def arguments(value: object, param: str, limits: Limits) -> None:
    """What a model passed to a function, sent back as part of the conversation."""
    string(empty=True)(value, param, limits)
    check_embedded(str(value), param)


_FUNCTION: Table = {"name": string(64), "arguments": arguments}


def _function(value: object, param: str, limits: Limits) -> None:
    check_members(value, param, _FUNCTION, limits, "name", "arguments")


_TOOL_CALL: Table = {"id": string(256), "type": one_of("function"), "function": _function}


def _tool_call(value: object, param: str, limits: Limits) -> None:
    if isinstance(value, dict) and value.get("type") == "custom":
        raise Refused(Reason.UNSUPPORTED_PARAMETER, param=f"{param}.type")
    check_members(value, param, _TOOL_CALL, limits, "id", "type", "function")


_said: Check = nullable(string(empty=True))
_SPOKEN: Table = {"role": _later, "content": _later, "name": _name}
_ANSWERED: Table = {
    **_SPOKEN,
    "tool_calls": nullable(array(_tool_call, MAX_TOOL_CALLS)),
    "refusal": _said,
    "reasoning": _said,
    "reasoning_content": _said,
    # Callers send back the message they got, with fields that mean nothing on the way in.
    "annotations": nullable(array(_later, MAX_MESSAGES)),
    "audio": unsupported,
    "function_call": unsupported,
}
_RETURNED: Table = {"role": _later, "content": _later, "tool_call_id": string(256)}

_ROLES: dict[str, tuple[Table, Parts, tuple[str, ...]]] = {
    "system": (_SPOKEN, TEXT, ("content",)),
    "developer": (_SPOKEN, TEXT, ("content",)),
    "user": (_SPOKEN, USER, ("content",)),
    "assistant": (_ANSWERED, ASSISTANT, ()),
    "tool": (_RETURNED, TEXT, ("content", "tool_call_id")),
}
"""What a message of each role may hold, which parts its content, and what it must hold."""
_PLAIN = ("user", "assistant", "system", "developer")


def messages(value: object, param: str, limits: Limits) -> None:
    pixels = 0
    for index, message in enumerate(check_array(value, param, MAX_MESSAGES)):
        if not isinstance(message, dict):
            raise wrong_type(message, f"{param}[{index}]", "object")
        # Nearly all messages are of this form, and long conversations have many.
        if len(message) == 2 and type(message.get("content")) is str and message.get("role") in _PLAIN:
            continue
        pixels += _check_message(message, f"{param}[{index}]", limits)
    check_total(pixels, param, limits)


def _check_message(message: dict[str, object], param: str, limits: Limits) -> int:
    if "role" not in message:
        raise Refused(Reason.MISSING_REQUIRED_PARAMETER, param=f"{param}.role")
    role = message["role"]
    if not isinstance(role, str) or role not in _ROLES:
        raise wrong_value(f"{param}.role", " | ".join(_ROLES))
    table, parts, required = _ROLES[role]
    check_members(message, param, table, limits, *required)
    content = message.get("content")
    if content is None and "content" not in required:
        # vLLM takes one of the two as null, never both.
        if message.get("tool_calls", ()) is None:
            raise wrong_type(None, f"{param}.tool_calls", "array")
        return 0
    return check_content(content, f"{param}.content", parts, limits)
