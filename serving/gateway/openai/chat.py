"""POST /v1/chat/completions: every field there is, and what it may hold."""

from __future__ import annotations

from serving.errors import Reason, Refused
from serving.gateway.openai import sampling, structured, tools
from serving.gateway.openai.checks import (
    Shape,
    Table,
    array,
    boolean,
    members,
    nullable,
    one_of,
    string,
    unsupported,
    wrong_value,
)
from serving.gateway.openai.hints import HINTS, TIERS
from serving.gateway.openai.limits import Limits
from serving.gateway.openai.messages import messages
from serving.gateway.openai.parts import TEXT, check_content
from serving.gateway.openai.streams import STREAM, check_stream_options, stream_options

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def _modalities(value: object, param: str, limits: Limits) -> None:
    array(one_of("text", "audio"), 2)(value, param, limits)
    if isinstance(value, list) and "audio" in value:
        raise Refused(Reason.UNSUPPORTED_PARAMETER, param=param)


def _text(value: object, param: str, limits: Limits) -> None:
    check_content(value, param, TEXT, limits)


_PREDICTION: Table = {"type": one_of("content"), "content": _text}
"""A guess at the answer that may speed it up. Replicas do without it."""


FIELDS: Table = {
    **sampling.CLASSIC,
    **tools.CHAT_FIELDS,
    **HINTS,
    "model": string(128),
    "messages": messages,
    "stream": STREAM,
    "stream_options": stream_options,
    "n": nullable(sampling.choices),
    "max_tokens": nullable(sampling.tokens),
    "max_completion_tokens": nullable(sampling.tokens),
    "logprobs": nullable(boolean),
    "top_logprobs": sampling.top_logprobs,
    "response_format": nullable(structured.response_format),
    "structured_outputs": nullable(structured.structured_outputs),
    "reasoning_effort": nullable(one_of(*EFFORTS)),
    "add_generation_prompt": boolean,
    "continue_final_message": boolean,
    "modalities": nullable(_modalities),
    "prediction": nullable(members(_PREDICTION, "type", "content")),
    "service_tier": nullable(one_of(*TIERS, "fast")),
    "verbosity": nullable(one_of("low", "medium", "high")),
    "audio": unsupported,
    "function_call": unsupported,
    "functions": unsupported,
    "moderation": unsupported,
    "web_search_options": unsupported,
}


def _check_together(fields: dict[str, object], limits: Limits) -> None:
    check_stream_options(fields)
    structured.check_one_shape(fields)
    tools.check_tool_choice(fields)
    sampling.check_min_tokens(fields, "max_tokens", "max_completion_tokens")
    if fields.get("top_logprobs") and not fields.get("logprobs"):
        raise wrong_value("top_logprobs", "logprobs: true")
    if fields.get("continue_final_message") and fields.get("add_generation_prompt", True):
        raise wrong_value("continue_final_message", "add_generation_prompt: false")


SHAPE = Shape(FIELDS, ("model", "messages"), _check_together, prompt="messages")
