"""Answers and events of ``/v1/responses``, after the Open Responses schema (openresponses.org)."""

from __future__ import annotations

from collections.abc import Mapping

from serving.gateway.answers.objects import Json, without_nulls

_NULLABLE = (
    "incomplete_details",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "reasoning",
    "usage",
)
_ECHOED = ("prompt_cache_key", "safety_identifier", "user")


def response(payload: Json, fields: Mapping[str, object], now: int) -> Json:
    """The response object. ``now`` (unix seconds) becomes ``completed_at`` of one that is complete.

    ``store`` is always false, whatever was asked: nothing is kept (R6).
    """
    reasoning, choice = payload["reasoning"], payload["tool_choice"]
    return {
        **without_nulls(payload, *_NULLABLE),
        "output": [item(each) for each in payload["output"]],
        "tools": [without_nulls(tool, "description", "parameters", "strict") for tool in payload["tools"]],
        "tool_choice": without_nulls(choice) if isinstance(choice, dict) else choice,
        "reasoning": without_nulls(reasoning, "effort", "summary") if reasoning else None,
        "text": _text(payload["text"] or {}),
        "top_logprobs": payload["top_logprobs"] or 0,
        "completed_at": now if payload["status"] == "completed" else None,
        "error": payload.get("error"),
        "store": False,
        "metadata": fields.get("metadata") or {},
        **{name: fields.get(name) for name in _ECHOED},
    }


def item(payload: Json) -> Json:
    """One output item: a message, a function call, a reasoning."""
    mended = without_nulls(payload)
    if content := mended.get("content"):
        mended["content"] = [part(each) for each in content]
    return mended


def part(payload: Json) -> Json:
    """One content part of an item."""
    if payload["type"] != "output_text":
        return without_nulls(payload)
    return {**without_nulls(payload), "logprobs": payload["logprobs"] or []}


def event(payload: Json, fields: Mapping[str, object], now: int) -> Json:
    """One event of a stream, other than a delta.

    vLLM ends every stream with ``response.completed``, also where the response in it is incomplete.
    """
    mended = dict(payload)
    if "response" in payload:
        mended["response"] = response(payload["response"], fields, now)
        if mended["response"]["status"] == "incomplete":
            mended["type"] = "response.incomplete"
    elif "item" in payload:
        mended["item"] = item(payload["item"])
    elif "part" in payload:
        mended["part"] = part(payload["part"])
    return mended


def _text(text: Json) -> Json:
    answer_format = text.get("format") or {"type": "text"}
    if answer_format["type"] == "json_schema":
        answer_format = {
            "description": None,
            **without_nulls(answer_format, "description", "schema"),
            "strict": bool(answer_format.get("strict")),
        }
    return {**without_nulls(text), "format": answer_format}
