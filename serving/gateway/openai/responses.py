"""POST /v1/responses: every field there is, and what it may hold. Nothing is stored, so nothing stored is found."""

from __future__ import annotations

from serving.errors import Reason, Refused
from serving.gateway.openai import sampling, structured, tools
from serving.gateway.openai.chat import EFFORTS
from serving.gateway.openai.checks import (
    Shape,
    Table,
    array,
    members,
    nullable,
    one_of,
    string,
    switched_off,
    unsupported,
)
from serving.gateway.openai.hints import HINTS, TIERS
from serving.gateway.openai.items import input_items
from serving.gateway.openai.limits import Limits
from serving.gateway.openai.streams import OPTIONS, STREAM, check_stream_options

_SUMMARIES = nullable(one_of("auto", "concise", "detailed"))
_INCLUDABLE = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
)
"""What vLLM takes. Of these it fills the log probabilities; the others belong to tools that no replica has."""


def _not_stored(value: object, param: str, limits: Limits) -> None:
    if value is not None:
        raise Refused(Reason.RESPONSE_NOT_FOUND, param=param)


FIELDS: Table = {
    **sampling.COMMON,
    **tools.RESPONSES_FIELDS,
    **HINTS,
    "model": string(128),
    "input": input_items,
    "instructions": nullable(string(empty=True)),
    "stream": STREAM,
    "stream_options": nullable(members({"include_obfuscation": OPTIONS["include_obfuscation"]})),
    "max_output_tokens": nullable(sampling.tokens),
    "top_logprobs": sampling.top_logprobs,
    "include": nullable(array(one_of(*_INCLUDABLE), len(_INCLUDABLE))),
    "text": nullable(structured.text),
    "structured_outputs": nullable(structured.structured_outputs),
    "reasoning": nullable(
        members(
            {
                "effort": nullable(one_of(*EFFORTS)),
                "summary": _SUMMARIES,
                "generate_summary": _SUMMARIES,
                "context": nullable(one_of("auto", "current_turn", "all_turns")),
                "mode": nullable(one_of("standard")),
            }
        )
    ),
    "truncation": nullable(one_of("auto", "disabled")),
    "service_tier": one_of(*TIERS),
    "background": nullable(switched_off),
    "previous_response_id": _not_stored,
    "access_programs": unsupported,
    "background_options": unsupported,
    "context_management": unsupported,
    "conversation": unsupported,
    "image": unsupported,
    "moderation": unsupported,
    "prompt": unsupported,
}


def _check_together(fields: dict[str, object], limits: Limits) -> None:
    check_stream_options(fields)
    structured.check_one_shape(fields)
    tools.check_tool_choice(fields)


SHAPE = Shape(FIELDS, ("model", "input"), _check_together, prompt="input")
