"""Answers of ``/v1/chat/completions`` and ``/v1/completions``."""

from __future__ import annotations

from serving.errors import OVERLOADED_RETRY_AFTER_S, Failed, Reason
from serving.gateway.answers.objects import Json, without_nulls


def chat_completion(payload: Json) -> Json:
    """OpenAI's ``CreateChatCompletionResponse``."""
    return _answer(payload, [_chat_choice(choice) for choice in payload["choices"]])


def completion(payload: Json) -> Json:
    """OpenAI's ``CreateCompletionResponse``."""
    return _answer(payload, [_choice(choice) for choice in payload["choices"]])


def _answer(payload: Json, choices: list[Json]) -> Json:
    return {**without_nulls(payload), "choices": choices, "usage": _usage(payload["usage"])}


def _choice(choice: Json) -> Json:
    return {**without_nulls(choice, "logprobs"), "finish_reason": _finish_reason(choice["finish_reason"])}


def _chat_choice(choice: Json) -> Json:
    logprobs = choice["logprobs"]
    return {
        **_choice(choice),
        "message": {"refusal": None, **without_nulls(choice["message"], "content", "refusal"), "role": "assistant"},
        "logprobs": None if logprobs is None else {"refusal": None, **logprobs},
    }


def _finish_reason(reason: str | None) -> str:
    """vLLM knows two reasons that OpenAI does not: ``abort`` and ``repetition``."""
    if reason == "abort":
        raise Failed(Reason.SERVER_IS_OVERLOADED, retry_after_s=OVERLOADED_RETRY_AFTER_S)
    return "stop" if reason in (None, "repetition") else reason


def _usage(usage: Json) -> Json:
    details = without_nulls(usage["prompt_tokens_details"] or {})
    return {**without_nulls(usage), "prompt_tokens_details": {"cached_tokens": 0, **details}}
