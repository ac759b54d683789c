"""Request bodies that real clients send, and that must pass."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from serving.errors import Reason, Refused
from serving.gateway.openai import Limits, read
from serving.types import Endpoint, Prompt

LIMITS = Limits(context_length=8192, country="ee")
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Tere!"}]}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "Tere"}
RESPONSE: dict[str, Any] = {"model": "m", "input": "Tere"}
BASES = {Endpoint.CHAT: CHAT, Endpoint.COMPLETIONS: COMPLETION, Endpoint.RESPONSES: RESPONSE}

EVERYWHERE = pytest.mark.parametrize("endpoint", list(Endpoint))


def encode(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")


def accept(endpoint: Endpoint, body: object, limits: Limits = LIMITS) -> Prompt:
    return read(endpoint, encode(body), limits)


def refusal(endpoint: Endpoint, body: object, limits: Limits = LIMITS) -> Refused:
    """The refusal that a body meets. ``body`` is bytes, or something to encode."""
    raw = body if isinstance(body, bytes) else encode(body)
    with pytest.raises(Refused) as caught:
        read(endpoint, raw, limits)
    assert caught.value.reason.wire.status in (400, 403, 404)
    return caught.value


def asked(content: object) -> list[dict[str, object]]:
    """Messages of a user who says this."""
    return [{"role": "user", "content": content}]


def chat(**fields: object) -> tuple[Reason, str | None]:
    """Why a chat completion with these fields is refused, and which field is named."""
    refused = refusal(Endpoint.CHAT, CHAT | fields)
    return refused.reason, refused.param


def completion(**fields: object) -> tuple[Reason, str | None]:
    refused = refusal(Endpoint.COMPLETIONS, COMPLETION | fields)
    return refused.reason, refused.param


def response(**fields: object) -> tuple[Reason, str | None]:
    refused = refusal(Endpoint.RESPONSES, RESPONSE | fields)
    return refused.reason, refused.param


def image(width: int = 8, height: int = 8, kind: str = "png") -> str:
    """A data URL of a grey picture."""
    out = io.BytesIO()
    Image.new("L", (width, height)).save(out, kind)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "pattern": "^[A-Z][a-z]{1,30}$"}, "where": {"$ref": "#/$defs/Place"}},
    "required": ["city", "where"],
    "additionalProperties": False,
    "$defs": {"Place": {"type": "object", "properties": {"lat": {"type": "number"}}}},
}
FUNCTION: dict[str, Any] = {"name": "get_weather", "description": "Weather", "parameters": SCHEMA, "strict": True}
TOOL: dict[str, Any] = {"type": "function", "function": FUNCTION}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Tartu"}'}}

CHATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "system, developer and unicode": {
        "messages": [
            {"role": "system", "content": "Vasta eesti keeles."},
            {"role": "developer", "content": "لا \u200f\u202b\u200d 👩\u200d👧"},
            {"role": "user", "content": "नमस्ते", "name": "mari"},
        ]
    },
    "sampling": {
        "temperature": 0.7,
        "top_p": 0.9,
        "presence_penalty": -1,
        "frequency_penalty": 2.0,
        "seed": -(2**63),
        "stop": ["\n", "END"],
        "n": 2,
        "max_completion_tokens": 64,
        "logit_bias": {"15": -100, "0": 3.5},
        "user": "u-1",
    },
    "nulls": {
        "temperature": None,
        "n": None,
        "stop": None,
        "stream": None,
        "stream_options": None,
        "tools": None,
        "logit_bias": None,
        "top_logprobs": None,
        "max_tokens": None,
        "metadata": None,
        "audio": None,
        "tool_choice": None,
        "response_format": None,
        "reasoning_effort": None,
        "seed": None,
    },
    "streaming": {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    "logprobs": {"logprobs": True, "top_logprobs": 20},
    "tools": {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
    "named tool": {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
    "tool round trip": {
        "tools": [TOOL],
        "messages": [
            {"role": "user", "content": "Ilm?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "+3"}]},
        ],
    },
    "an answer sent back": {
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": "Hello",
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
                "tool_calls": None,
                "reasoning": None,
            },
            {"role": "user", "content": "More"},
        ]
    },
    "json schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "w", "strict": True, "schema": SCHEMA}}
    },
    "json object": {"response_format": {"type": "json_object"}},
    "image": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What?"},
                    {"type": "image_url", "image_url": {"url": image(), "detail": "low"}},
                ],
            }
        ]
    },
    "hints": {
        "metadata": {"team": "a", "country": "ee"},
        "store": True,
        "service_tier": "auto",
        "verbosity": "low",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "modalities": ["text"],
        "prediction": {"type": "content", "content": "Hello"},
        "reasoning_effort": "low",
    },
    "vllm": {
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "min_tokens": 2,
        "ignore_eos": False,
        "stop_token_ids": [2],
        "include_stop_str_in_output": True,
        "skip_special_tokens": True,
        "bad_words": ["x"],
        "max_tokens": 8,
    },
    "prefill": {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hel"}],
        "continue_final_message": True,
        "add_generation_prompt": False,
    },
    "structured regex": {"structured_outputs": {"regex": r"(?:\+372)? ?[0-9]{7,8}"}},
    "structured choice": {"structured_outputs": {"choice": ["jah", "ei"]}},
    "structured json text": {"structured_outputs": {"json": json.dumps(SCHEMA)}},
}
COMPLETIONS: dict[str, dict[str, Any]] = {
    "plain": {"max_tokens": 16, "temperature": 0, "echo": True, "best_of": 1, "n": 1, "suffix": None},
    "strings": {"prompt": ["a", "b"], "logprobs": 5, "stop": "\n"},
    "tokens": {"prompt": [1, 2, 3], "stream": True, "stream_options": {"include_usage": True}},
    "token arrays": {"prompt": [[1, 2], [3]]},
}
RESPONSES: dict[str, dict[str, Any]] = {
    "plain": {"instructions": "Be brief", "max_output_tokens": 32, "store": True, "temperature": 1, "stream": True},
    "messages": {
        "input": [
            {"role": "developer", "content": "Be brief"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {
                "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
            },
            {"role": "user", "content": "And?"},
        ]
    },
    "image": {
        "input": [{"role": "user", "content": [{"type": "input_image", "image_url": image(), "detail": "auto"}]}]
    },
    "tool round trip": {
        "tools": [{"type": "function", **FUNCTION}],
        "tool_choice": {"type": "function", "name": "get_weather"},
        "input": [
            {"role": "user", "content": "Ilm?"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {
                "type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}", "id": "fc_1",
                "status": "completed",
            },
            {"type": "function_call_output", "call_id": "c1", "output": "+3"},
        ],
    },
    "json schema": {
        "text": {"format": {"type": "json_schema", "name": "w", "schema": SCHEMA, "strict": True}, "verbosity": "low"}
    },
    "reasoning": {
        "reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"],
        "truncation": "auto", "parallel_tool_calls": True, "service_tier": "default", "background": False,
        "previous_response_id": None, "metadata": {}, "prompt_cache_key": "k", "safety_identifier": "s",
    },
    "logprobs": {"include": ["message.output_text.logprobs"], "top_logprobs": 5},
    "vllm": {"top_k": 40, "min_p": 0.1, "stop_token_ids": [2], "structured_outputs": {"choice": ["a", "b"]}},
}  # fmt: skip
CORPUS = [
    *((Endpoint.CHAT, f"chat {name}", CHAT | fields) for name, fields in CHATS.items()),
    *((Endpoint.COMPLETIONS, f"completions {name}", COMPLETION | fields) for name, fields in COMPLETIONS.items()),
    *((Endpoint.RESPONSES, f"responses {name}", RESPONSE | fields) for name, fields in RESPONSES.items()),
]

ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 0.5, 1.0, 5, "", "x", "auto", "none", "text", "low", "user", "assistant", "1"),
    *([], {}, ["x"], [1], {"a": "b"}, {"1": 1}, [{}], {"type": "text"}, {"type": []}, "{}", [[1]], "completed"),
]


def mutations(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The body with each of its values replaced by each of :data:`ODD`."""
    for place in places(body):
        for value in ODD:
            changed = json.loads(encode(body))
            node = changed
            for step in place[:-1]:
                node = node[step]
            node[place[-1]] = value
            yield changed


def places(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    steps = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for step, inner in steps:
        yield (*above, step)
        yield from places(inner, (*above, step))
