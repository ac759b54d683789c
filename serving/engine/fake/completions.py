"""Chat completions and completions as vLLM 0.32 writes them, field by field and null by null."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from serving.engine.fake.generation import Generate, Token
from serving.engine.fake.reading import Ask, EngineRefusal
from serving.engine.port import EngineDead
from serving.types import Endpoint

Json = dict[str, Any]
FINGERPRINT = "fake-0"


async def answer(generate: Generate, endpoint: Endpoint, ask: Ask, request_id: str, model: str) -> Json:
    """The whole answer as one object."""
    choices: dict[int, list[Token]] = {}
    async with aclosing(generate(ask)) as tokens:
        async for token in tokens:
            choices.setdefault(token.choice, []).append(token)
    chat = endpoint is Endpoint.CHAT
    choice = _chat_choice if chat else _choice
    return {
        "id": request_id,
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice(ask, index, choices[index]) for index in sorted(choices)],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": {
            **_usage(ask, sum(map(len, choices.values()))),
            "prompt_tokens_details": {
                "cached_tokens": choices[0][0].cached,
                "created_cache_tokens": None,
                "multimodal_tokens": None,
            },
            "completion_tokens_details": None,
        },
        **({"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None} if chat else {}),
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


async def stream(
    generate: Generate, endpoint: Endpoint, ask: Ask, request_id: str, model: str
) -> AsyncGenerator[bytes, None]:
    """The same as events. A failure is an event too, and ``[DONE]`` follows it nonetheless."""
    chat = endpoint is Endpoint.CHAT
    kind = "chat.completion.chunk" if chat else "text_completion"
    head = {"id": request_id, "object": kind, "created": int(time.time()), "model": model}
    wants_usage = bool((ask.body.get("stream_options") or {}).get("include_usage"))
    count = cached = 0
    try:
        async with aclosing(generate(ask)) as tokens:
            async for token in tokens:
                if chat and not count:
                    for index in range(ask.n):
                        yield _event(
                            {**head, "choices": [_opening(index)], "prompt_token_ids": None, "prompt_text": None}
                        )
                count += 1
                cached = token.cached
                chunk = {**head, "choices": [_delta(ask, token) if chat else _piece(ask, token)]}
                if token.finish_reason and not wants_usage:
                    chunk["system_fingerprint"] = FINGERPRINT
                yield _event(chunk)
        if wants_usage:
            usage = {**_usage(ask, count), "prompt_tokens_details": {"cached_tokens": cached}}
            yield _event({**head, "choices": [], "usage": usage, "system_fingerprint": FINGERPRINT})
    except EngineRefusal as refusal:
        yield _failure(refusal)
    except EngineDead as death:
        yield _failure(EngineRefusal(str(death), "InternalServerError", 500))
    yield b"data: [DONE]\n\n"


def _usage(ask: Ask, completion: int) -> Json:
    prompt = sum(map(len, ask.prompts))
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def _chat_choice(ask: Ask, index: int, tokens: list[Token]) -> Json:
    text = "".join(token.text for token in tokens)
    called = {"tool_calls": [_call(ask, text)]} if ask.tool else {}
    return {
        "index": index,
        "message": {
            "role": "assistant",
            "content": "" if ask.tool else text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            **called,
            "reasoning": None,
        },
        "logprobs": _chat_logprobs(ask, tokens),
        "finish_reason": _finish_reason(ask, tokens[-1]),
        "stop_reason": tokens[-1].stop_reason,
        "token_ids": None,
        "routed_experts": None,
    }


def _choice(ask: Ask, index: int, tokens: list[Token]) -> Json:
    return {
        "index": index,
        "text": "".join(token.text for token in tokens),
        "logprobs": _logprobs(ask, tokens),
        "finish_reason": tokens[-1].finish_reason,
        "stop_reason": tokens[-1].stop_reason,
        "token_ids": None,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "routed_experts": None,
    }


def _opening(index: int) -> Json:
    return {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}


def _delta(ask: Ask, token: Token) -> Json:
    delta: Json = {"content": token.text}
    if ask.tool:
        first = token.place == 0
        function = {"name": ask.tool, "arguments": token.text} if first else {"arguments": token.text}
        opened = {"id": _call_id(token.choice), "type": "function"} if first else {}
        delta = {"tool_calls": [{**opened, "index": 0, "function": function}]}
    reason = _finish_reason(ask, token)
    stopped = {"stop_reason": token.stop_reason} if reason else {}
    logprobs = _chat_logprobs(ask, [token])
    return {
        "index": token.choice,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": reason,
        **stopped,
        "token_ids": None,
    }


def _piece(ask: Ask, token: Token) -> Json:
    return {
        "index": token.choice,
        "text": token.text,
        "logprobs": _logprobs(ask, [token]),
        "finish_reason": token.finish_reason,
        "stop_reason": token.stop_reason,
        "prompt_token_ids": None,
        "token_ids": None,
    }


def _call_id(choice: int) -> str:
    return f"chatcmpl-tool-{choice:016x}"


def _call(ask: Ask, arguments: str) -> Json:
    return {"id": _call_id(0), "type": "function", "function": {"name": ask.tool, "arguments": arguments}}


def _finish_reason(ask: Ask, token: Token) -> str | None:
    """vLLM says ``tool_calls`` where a call was required, and ``stop`` where it was named."""
    required = ask.body.get("tool_choice") == "required"
    return "tool_calls" if required and token.finish_reason == "stop" else token.finish_reason


def _chat_logprobs(ask: Ask, tokens: list[Token]) -> Json | None:
    if not ask.body.get("logprobs"):
        return None
    most = ask.body.get("top_logprobs") or 0
    return {"content": [{**token.chosen, "top_logprobs": token.candidates[:most]} for token in tokens]}


def _logprobs(ask: Ask, tokens: list[Token]) -> Json | None:
    most = ask.body.get("logprobs")
    if most is None:
        return None
    offsets = [sum(len(before.text) for before in tokens[:place]) for place in range(len(tokens))]
    return {
        "text_offset": offsets,
        "token_logprobs": [token.chosen["logprob"] for token in tokens],
        "tokens": [token.text for token in tokens],
        "top_logprobs": [{one["token"]: one["logprob"] for one in token.candidates[: most + 1]} for token in tokens],
    }


def _failure(refusal: EngineRefusal) -> bytes:
    return f"data: {json.dumps(refusal.body)}\n\n".encode()


def _event(chunk: Json) -> bytes:
    return f"data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
