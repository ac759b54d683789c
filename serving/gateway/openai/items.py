"""The ``input`` of the Responses API: a text, or items that tell a conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from serving.errors import Reason, Refused
from serving.gateway.openai.checks import (
    Table,
    array,
    check_array,
    check_members,
    check_string,
    nullable,
    one_of,
    string,
    unsupported,
    wrong_type,
    wrong_value,
)
from serving.gateway.openai.images import check_total
from serving.gateway.openai.limits import Limits
from serving.gateway.openai.messages import arguments
from serving.gateway.openai.parts import INPUT, OUTPUT, check_content

MAX_ITEMS = 2048

Item = Callable[[dict[str, object], str, Limits], int]
"""Checks one item and returns how many pixels it holds."""

_id = string(256)
_STATUS = one_of("in_progress", "completed", "incomplete")
_ITEM: Table = {"type": string(64), "id": nullable(_id), "status": nullable(_STATUS)}


def _later(value: object, param: str, limits: Limits) -> None:
    """Read by the item as a whole."""


_MESSAGE: Table = {
    **_ITEM,
    # vLLM takes null for these two in a call, and not in a message.
    "id": _id,
    "status": _STATUS,
    "role": one_of("user", "assistant", "system", "developer"),
    "content": _later,
    "phase": nullable(one_of("commentary", "final_answer")),
}


def _message(item: dict[str, object], param: str, limits: Limits) -> int:
    check_members(item, param, _MESSAGE, limits, "role", "content")
    parts = OUTPUT if item["role"] == "assistant" else INPUT
    return check_content(item["content"], f"{param}.content", parts, limits)


_CALL: Table = {
    **_ITEM,
    "call_id": _id,
    "name": string(64),
    "arguments": arguments,
    "namespace": unsupported,
    "caller": unsupported,
    "async": unsupported,
}


def _function_call(item: dict[str, object], param: str, limits: Limits) -> int:
    check_members(item, param, _CALL, limits, "call_id", "name", "arguments")
    return 0


_CALL_OUTPUT: Table = {
    **_ITEM,
    "call_id": _id,
    "output": _later,
    "name": nullable(string(64)),
    "namespace": unsupported,
    "caller": unsupported,
}


def _function_call_output(item: dict[str, object], param: str, limits: Limits) -> int:
    check_members(item, param, _CALL_OUTPUT, limits, "call_id", "output")
    return check_content(item["output"], f"{param}.output", INPUT, limits)


def _thought(kind: str) -> Table:
    return {"type": one_of(kind), "text": string(empty=True)}


def _thoughts(kind: str) -> Callable[[object, str, Limits], object]:
    table = _thought(kind)
    return array(lambda value, param, limits: check_members(value, param, table, limits, *table), MAX_ITEMS)


_REASONING: Table = {
    **_ITEM,
    "id": _id,
    "summary": _thoughts("summary_text"),
    "content": nullable(_thoughts("reasoning_text")),
    "encrypted_content": unsupported,
}


def _reasoning(item: dict[str, object], param: str, limits: Limits) -> int:
    check_members(item, param, _REASONING, limits, "summary")
    return 0


def _not_stored(item: dict[str, object], param: str, limits: Limits) -> int:
    raise Refused(Reason.RESPONSE_NOT_FOUND, param=param)


_ITEMS: Mapping[str, Item] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "reasoning": _reasoning,
    "item_reference": _not_stored,
}


def input_items(value: object, param: str, limits: Limits) -> None:
    if type(value) is str:
        check_string(value, param)
        return
    if not isinstance(value, list):
        raise wrong_type(value, param, "string | array")
    pixels = 0
    for index, item in enumerate(check_array(value, param, MAX_ITEMS)):
        pixels += _check_item(item, f"{param}[{index}]", limits)
    check_total(pixels, param, limits)


def _check_item(item: object, param: str, limits: Limits) -> int:
    if not isinstance(item, dict):
        raise wrong_type(item, param, "object")
    # A message may go without its type.
    kind_of_item = item.get("type", "message")
    check = _ITEMS.get(kind_of_item) if isinstance(kind_of_item, str) else None
    if check is None:
        raise wrong_value(f"{param}.type", " | ".join(_ITEMS))
    return check(item, param, limits)
