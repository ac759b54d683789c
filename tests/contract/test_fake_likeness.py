"""The fake engine writes what vLLM's own models write: read by them and written again, nothing changes.

What the gateway mends is thus what vLLM gets wrong, and a new vLLM that writes otherwise is noticed here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serving.engine.fake import FakeEngine
from serving.types import Endpoint
from tests.contract.conftest import door
from tests.loopback import events, listening, streamed

pytestmark = pytest.mark.engine

TOOL = {"name": "weather", "parameters": {"type": "object", "required": ["city"], "properties": {"city": {}}}}
CHATS: list[dict[str, Any]] = [
    {},
    {"n": 2, "stop": ["r"]},
    {"logprobs": True, "top_logprobs": 2},
    {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required"},
    {"stream_options": {"include_usage": True}},
]
COMPLETIONS: list[dict[str, Any]] = [{}, {"logprobs": 2}, {"stream_options": {"include_usage": True}}]
RESPONSES: list[dict[str, Any]] = [
    {},
    {"max_output_tokens": 3, "metadata": {"a": "b"}, "reasoning": {"effort": "low"}},
    {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    {"tools": [{"type": "function", **TOOL}], "tool_choice": "required"},
    {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}},
]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    engine = FakeEngine()
    await engine.start()
    async with listening(door(engine.app)) as base, httpx.AsyncClient(base_url=base) as client:
        yield client


@pytest.mark.parametrize("fields", CHATS)
async def test_a_chat_completion_is_vllms(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse, ChatCompletionStreamResponse

    body = {"messages": [{"role": "user", "content": "hello"}], **fields}
    answer = (await client.post(Endpoint.CHAT, json=body)).json()
    assert ChatCompletionResponse.model_validate(answer).model_dump() == answer
    for event in events(await streamed(client, Endpoint.CHAT, body))[:-1]:
        assert (
            ChatCompletionStreamResponse.model_validate_json(event.data).model_dump_json(exclude_unset=True)
            == event.data
        )


@pytest.mark.parametrize("fields", COMPLETIONS)
async def test_a_completion_is_vllms(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    from vllm.entrypoints.openai.completion.protocol import CompletionResponse, CompletionStreamResponse

    body = {"prompt": "hello", **fields}
    answer = (await client.post(Endpoint.COMPLETIONS, json=body)).json()
    assert CompletionResponse.model_validate(answer).model_dump() == answer
    for event in events(await streamed(client, Endpoint.COMPLETIONS, body))[:-1]:
        assert (
            CompletionStreamResponse.model_validate_json(event.data).model_dump_json(exclude_unset=True) == event.data
        )


@pytest.mark.parametrize("fields", RESPONSES)
async def test_a_response_is_vllms(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    from openai.types.responses import ResponseStreamEvent
    from pydantic import TypeAdapter
    from vllm.entrypoints.openai.responses.protocol import ResponsesResponse

    body = {"input": "hello", **fields}
    answer = (await client.post(Endpoint.RESPONSES, json=body)).json()
    assert ResponsesResponse.model_validate(answer).model_dump(mode="json", by_alias=True) == answer
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for event in events(await streamed(client, Endpoint.RESPONSES, body)):
        payload = event.json()
        if "response" in payload:
            written = ResponsesResponse.model_validate(payload["response"]).model_dump(mode="json", by_alias=True)
            assert written == payload["response"]
        else:
            assert adapter.dump_python(adapter.validate_python(payload), mode="json", by_alias=True) == payload


async def test_a_refusal_is_vllms(client: httpx.AsyncClient) -> None:
    from vllm.entrypoints.serve.engine.protocol import ErrorResponse

    for body in ({}, {"messages": [{"role": "user", "content": "hello"}], "model": "another"}):
        refusal = (await client.post(Endpoint.CHAT, json=body)).json()
        assert ErrorResponse.model_validate(refusal).model_dump() == refusal
