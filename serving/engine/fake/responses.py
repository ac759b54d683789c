"""Responses as vLLM 0.32 writes them: the object, and its events in their order."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from serving.engine.fake.generation import Generate, Token
from serving.engine.fake.reading import Ask

Json = dict[str, Any]
_WITH_LOGPROBS = "message.output_text.logprobs"


async def answer(generate: Generate, ask: Ask, request_id: str, model: str) -> Json:
    """The whole answer as one object."""
    async with aclosing(generate(ask)) as generated:
        tokens = [token async for token in generated]
    made = int(time.time())
    return _response(ask, request_id, model, made, _status(tokens), [_item(ask, _item_id(ask), tokens)], tokens)


async def stream(generate: Generate, ask: Ask, request_id: str, model: str) -> AsyncGenerator[bytes, None]:
    """The same as events. A failure breaks the stream off, and no ``[DONE]`` ends it."""
    made, number = int(time.time()), 0

    def event(kind: str, **fields: object) -> bytes:
        nonlocal number
        payload = {**fields, "sequence_number": number, "type": kind}
        number += 1
        return f"event: {kind}\ndata: {json.dumps(payload, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()

    begun = _response(ask, request_id, model, made, "in_progress", [], [])
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    item_id = _item_id(ask)
    at: Json = {"item_id": item_id, "output_index": 0}
    part: Json = {} if ask.tool else {"content_index": 0}
    delta = "response.function_call_arguments.delta" if ask.tool else "response.output_text.delta"
    tokens: list[Token] = []
    async with aclosing(generate(ask)) as generated:
        async for token in generated:
            if not tokens:
                yield event("response.output_item.added", item=_item(ask, item_id, []), output_index=0)
                if not ask.tool:
                    yield event("response.content_part.added", **part, **at, part=_part([], logprobs=[]))
            tokens.append(token)
            logprobs = {} if ask.tool else {"logprobs": _streamed_logprobs(ask, token)}
            yield event(delta, **part, delta=token.text, **logprobs, **at)
    text = "".join(token.text for token in tokens)
    if ask.tool:
        yield event("response.function_call_arguments.done", arguments=text, **at, name=ask.tool)
    else:
        yield event("response.output_text.done", **part, logprobs=[], **at, text=text)
        yield event("response.content_part.done", **part, **at, part=_part(tokens, _logprobs(ask, tokens)))
    item = _item(ask, item_id, tokens)
    yield event("response.output_item.done", item=item, output_index=0)
    response = _response(ask, request_id, model, made, _status(tokens), [item], tokens)
    yield event("response.completed", response=response)


def _status(tokens: list[Token]) -> str:
    return "incomplete" if tokens[-1].finish_reason == "length" else "completed"


def _item_id(ask: Ask) -> str:
    return f"{'fc' if ask.tool else 'msg'}_{uuid4().hex[:16]}"


def _item(ask: Ask, item_id: str, tokens: list[Token]) -> Json:
    status = "completed" if tokens else "in_progress"
    if not ask.tool:
        content = [_part(tokens, _logprobs(ask, tokens))] if tokens else []
        return {
            "id": item_id,
            "content": content,
            "role": "assistant",
            "status": status,
            "type": "message",
            "phase": None,
        }
    return {
        "arguments": "".join(token.text for token in tokens),
        "call_id": f"chatcmpl-tool-{item_id[3:]}",
        "name": ask.tool,
        "type": "function_call",
        "id": item_id,
        "async": None,
        "caller": None,
        "namespace": None,
        "status": status,
    }


def _part(tokens: list[Token], logprobs: list[Json] | None) -> Json:
    text = "".join(token.text for token in tokens)
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": logprobs}


def _logprobs(ask: Ask, tokens: list[Token]) -> list[Json] | None:
    if _WITH_LOGPROBS not in (ask.body.get("include") or []):
        return None
    most = ask.body.get("top_logprobs") or 0
    return [{**token.chosen, "top_logprobs": token.candidates[:most]} for token in tokens]


def _streamed_logprobs(ask: Ask, token: Token) -> list[Json]:
    """Deltas have no ``bytes``."""
    whole = _logprobs(ask, [token]) or []
    return [
        {
            "token": one["token"],
            "logprob": one["logprob"],
            "top_logprobs": [{"token": top["token"], "logprob": top["logprob"]} for top in one["top_logprobs"]],
        }
        for one in whole
    ]


def _response(
    ask: Ask, request_id: str, model: str, made: int, status: str, output: list[Json], tokens: list[Token]
) -> Json:
    body = ask.body
    no_tools = body.get("tool_choice", "auto") if body.get("tools") else "none"
    with_logprobs = _WITH_LOGPROBS in (body.get("include") or [])
    return {
        "id": request_id,
        "created_at": made,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata"),
        "model": model,
        "object": "response",
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "temperature": 1.0 if body.get("temperature") is None else body["temperature"],
        "tool_choice": no_tools,
        "tools": [_tool(tool) for tool in body.get("tools") or []],
        "top_p": body.get("top_p") or 1.0,
        "background": False,
        "max_output_tokens": ask.wish.max_tokens,
        "max_tool_calls": body.get("max_tool_calls"),
        "previous_response_id": None,
        "prompt": None,
        "reasoning": _reasoning(body.get("reasoning")),
        "service_tier": body.get("service_tier") or "auto",
        "status": status,
        "text": _text(body.get("text")),
        "top_logprobs": (body.get("top_logprobs") or 0) if with_logprobs else None,
        "truncation": body.get("truncation") or "disabled",
        "usage": _usage(ask, tokens) if tokens else None,
        "user": body.get("user"),
        "presence_penalty": body.get("presence_penalty") or 0.0,
        "frequency_penalty": body.get("frequency_penalty") or 0.0,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "input_messages": None,
        "output_messages": None,
    }


def _tool(tool: Json) -> Json:
    absent = ("strict", "allowed_callers", "async", "defer_loading", "description", "output_schema")
    return {**dict.fromkeys(absent), **tool}


def _reasoning(reasoning: Json | None) -> Json | None:
    absent = ("context", "effort", "generate_summary", "mode", "summary")
    return None if reasoning is None else {**dict.fromkeys(absent), **reasoning}


def _text(text: Json | None) -> Json | None:
    if text is None:
        return None
    asked = text.get("format")
    if asked and asked["type"] == "json_schema":
        asked = {"description": None, "strict": None, **asked}
    return {"format": asked, "verbosity": text.get("verbosity")}


def _usage(ask: Ask, tokens: list[Token]) -> Json:
    prompt, cached = len(ask.prompts[0]), tokens[0].cached
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": cached,
            "cache_write_tokens": 0,
            "input_tokens_per_turn": [prompt],
            "cached_tokens_per_turn": [cached],
        },
        "output_tokens": len(tokens),
        "output_tokens_details": {
            "reasoning_tokens": 0,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [len(tokens)],
            "tool_output_tokens_per_turn": [0],
        },
        "total_tokens": prompt + len(tokens),
    }
