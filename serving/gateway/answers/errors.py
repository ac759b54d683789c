"""vLLM's errors, translated where they are first met.

vLLM answers ``{"error": {"message", "type", "param", "code"}}`` with the HTTP status as ``code``; inside a stream
that has begun, the same object is an event. Its messages are English and may quote the caller's input: they become
the fact ``detail``, which is for the caller alone and never for a log (R7).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from serving.errors import OVERLOADED_RETRY_AFTER_S, DomicileError, Failed, Reason, Refused
from serving.types import Endpoint

DETAIL_MAX = 500

_PROMPT = {Endpoint.CHAT: "messages", Endpoint.COMPLETIONS: "prompt", Endpoint.RESPONSES: "input"}

_CONTEXT = re.compile(r"maximum context length|exceeds the max_model_len|maximum model length")
_LENGTH = re.compile(
    r"(?:contains (?:at least )?|Input length \(|prompt length |\(length )(?P<got>\d+)\b(?! characters)"
)
_NO_ROOM = re.compile(r"max_tokens must be at least 1, got 0\b")
_BEYOND_CONTEXT = re.compile(r"(?P<param>\w+)=(?P<got>\d+) cannot be greater than max_model_len=(?P<limit>\d+)")
_BOUND = re.compile(r"`?(?P<param>\w+)`? must be at (?P<side>least|most) (?P<limit>\d+), got (?P<got>-?\d+)")
_VALUE = re.compile(r"`?(?P<param>\w+)`? (?:must|cannot) (?:be|contain)\b")
_VOCABULARY = re.compile(r"Vocabulary size: (?P<size>\d+)")
_GRAMMAR = re.compile(r"grammar|regex|json.schema|structural.tag|structured.output", re.IGNORECASE)
_GRAMMAR_PARAMS = ("response_format", "structured_outputs", "text", "tools")
_PYDANTIC = re.compile(
    r"\d+ validation errors?:\n.*?'msg': (?P<quote>['\"])(?:Value error, )?(?P<text>.*?)(?P=quote), '"
)
_SUFFIX = re.compile(r" \(parameter=.*\Z", re.DOTALL)


def error_of(
    endpoint: Endpoint,
    payload: Mapping[str, Any],
    fields: Mapping[str, object],
    *,
    context_length: int,
    status: int | None = None,
) -> DomicileError:
    """The exception to raise for vLLM's error body.

    ``fields`` are the request's, ``context_length`` is the model's. Without ``status``, the code in the body says it.
    """
    error = payload["error"]
    status = int(error["code"]) if status is None else status
    param = error.get("param")
    if status == 503:
        return Failed(Reason.SERVER_IS_OVERLOADED, retry_after_s=OVERLOADED_RETRY_AFTER_S)
    if status == 404 and param == "model":
        return Refused(Reason.MODEL_NOT_FOUND, param="model", model=str(fields.get("model")))
    if status == 404 and param == "response_id":
        return Refused(Reason.RESPONSE_NOT_FOUND, param="previous_response_id")
    if status not in (400, 422):
        return Failed(Reason.INTERNAL_ERROR)
    message = _words(error["message"])
    if _CONTEXT.search(message) or _NO_ROOM.match(message):
        found = _LENGTH.search(message)
        got = int(found["got"]) if found else context_length + 1
        return Refused(
            Reason.CONTEXT_LENGTH_EXCEEDED,
            param=_PROMPT[endpoint],
            limit=context_length,
            got=got,
            detail=message[:DETAIL_MAX],
        )
    return _number(message) or _rest(message, _param(param), fields)


def _number(message: str) -> Refused | None:
    """A number that vLLM has a bound for. The prompt's bound is not among them."""
    if found := _BEYOND_CONTEXT.match(message):
        reason = Reason.INTEGER_ABOVE_MAX_VALUE
    elif found := _BOUND.match(message):
        least = found["side"] == "least"
        reason = Reason.INTEGER_BELOW_MIN_VALUE if least else Reason.INTEGER_ABOVE_MAX_VALUE
    else:
        return None
    detail = message[:DETAIL_MAX]
    return Refused(reason, param=found["param"], limit=int(found["limit"]), got=int(found["got"]), detail=detail)


def _rest(message: str, param: str | None, fields: Mapping[str, object]) -> Refused:
    detail = message[:DETAIL_MAX]
    if param == "logit_bias" and (found := _VOCABULARY.search(message)):
        return Refused(Reason.INVALID_VALUE, param=param, expected=f"0 ≤ token < {found['size']}", detail=detail)
    if param is not None and param.startswith("tool"):
        return Refused(Reason.INVALID_TOOL, param=param, expected=detail, detail=detail)
    if param in _GRAMMAR_PARAMS or (param is None and _GRAMMAR.search(message)):
        asked = next((name for name in _GRAMMAR_PARAMS if fields.get(name)), param)
        return Refused(Reason.INVALID_GRAMMAR, param=asked, expected=detail, detail=detail)
    if found := _VALUE.match(message):
        return Refused(Reason.INVALID_VALUE, param=found["param"], expected=detail, detail=detail)
    return Refused(Reason.ENGINE_REFUSED, param=param, detail=detail)


def _words(message: str) -> str:
    """The message without the values that vLLM and pydantic append to it."""
    if found := _PYDANTIC.match(message):
        message = found["text"]
    return _SUFFIX.sub("", message)


def _param(param: str | None) -> str | None:
    """``body.messages.0.content`` of FastAPI is ``messages[0].content`` of OpenAI."""
    if param is None or param == "body":
        return None
    return re.sub(r"\.(\d+)\b", r"[\1]", param.removeprefix("body."))
