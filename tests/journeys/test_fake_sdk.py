"""What a programmer does with OpenAI's own SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.house import MODEL, Land
from tests.journeys.bodies import FORECAST, FORMAT, WEATHER
from tests.schemas import check

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(ee: Land) -> AsyncIterator[AsyncOpenAI]:
    async with ee.openai() as client:
        yield client


async def test_chat(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}]
    )
    check("chat_completion", json.loads(raw.content))
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


async def test_streaming(client: AsyncOpenAI) -> None:
    text, usage = "", None
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    async for chunk in stream:
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
        usage = chunk.usage
    whole = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
    assert text == whole.choices[0].message.content
    assert usage is not None
    assert whole.usage is not None
    assert usage.total_tokens == whole.usage.total_tokens


async def test_the_sdk_s_own_accumulator(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}], n=2, seed=5
    ) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert len(final.choices) == 2
    assert final.choices[0].message.content != final.choices[1].message.content


async def test_a_forced_tool(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "The weather?"}],
        tools=[FORECAST],
        tool_choice={"type": "function", "function": {"name": "forecast"}},
    )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert calls[0].function.name == "forecast"
    assert json.loads(calls[0].function.arguments) == {"city": "Tallinn", "days": 1}
    said: Any = answer.choices[0].message.model_dump(exclude_none=True)
    again = await client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "user", "content": "The weather?"},
            said,
            {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"},
        ],
    )
    assert again.choices[0].message.content


async def test_a_forced_tool_streams(client: AsyncOpenAI) -> None:
    strict: Any = {**FORECAST, "function": {**FORECAST["function"], "strict": True}}
    async with client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": "The weather?"}],
        tools=[strict],
        tool_choice="required",
    ) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert json.loads(calls[0].function.arguments) == {"city": "Tallinn", "days": 1}


async def test_a_json_schema(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "The weather?"}],
        response_format=FORMAT,
    )
    assert json.loads(answer.choices[0].message.content or "") == {"city": "Tallinn", "days": 1}


async def test_log_probabilities(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello"}],
        logprobs=True,
        top_logprobs=2,
        max_tokens=3,
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 3
    assert all(len(token.top_logprobs) == 2 for token in logprobs.content)
    assert answer.choices[0].finish_reason == "length"


async def test_seed_and_stop(client: AsyncOpenAI) -> None:
    async def said(seed: int, stop: str | None = None) -> str:
        answer = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello"}], seed=seed, stop=stop
        )
        return answer.choices[0].message.content or ""

    first = await said(1)
    assert await said(1) == first
    assert await said(2) != first
    word = first.split()[3]
    assert await said(1, word) == first[: first.index(word)]


async def test_completions(client: AsyncOpenAI) -> None:
    raw = await client.completions.with_raw_response.create(model=MODEL, prompt="Once", max_tokens=5)
    check("completion", json.loads(raw.content))
    pieces = [
        chunk.choices[0].text
        async for chunk in await client.completions.create(model=MODEL, prompt="Once", max_tokens=5, stream=True)
    ]
    assert "".join(pieces) == raw.parse().choices[0].text


async def test_responses(client: AsyncOpenAI) -> None:
    raw = await client.responses.with_raw_response.create(
        model=MODEL, input="Hello", instructions="Be brief.", metadata={"order": "7"}
    )
    check("response", json.loads(raw.content))
    answer = raw.parse()
    assert answer.status == "completed"
    assert answer.output_text
    assert answer.metadata == {"order": "7"}


async def test_responses_stream(client: AsyncOpenAI) -> None:
    kinds, text = [], ""
    async with client.responses.stream(model=MODEL, input="Hello") as stream:
        async for event in stream:
            kinds.append(event.type)
            if event.type == "response.output_text.delta":
                text += event.delta
        final = await stream.get_final_response()
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert final.output_text == text


async def test_a_tool_over_responses(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(
        model=MODEL,
        input="The weather?",
        tools=[{"type": "function", "name": "forecast", "parameters": WEATHER, "strict": True}],
        tool_choice="required",
    )
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"city": "Tallinn", "days": 1}


async def test_stored_ids_of_others_are_not_there(client: AsyncOpenAI) -> None:
    answer = await client.responses.create(model=MODEL, input="Hello")
    for id_ in (answer.id, "resp_1"):
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(id_)
        with pytest.raises(openai.NotFoundError):
            await client.responses.delete(id_)
        with pytest.raises(openai.NotFoundError):
            await client.responses.create(model=MODEL, input="Hello", previous_response_id=id_)


async def test_models(client: AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).owned_by == "domicile-ee"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("gpt-4")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_errors_are_those_that_the_sdk_knows(ee: Land, client: AsyncOpenAI) -> None:
    hello: Any = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model=MODEL, messages=hello, temperature=3)
    assert (bad.value.code, bad.value.param) == ("decimal_above_max_value", "temperature")
    assert bad.value.request_id
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="gpt-4", messages=hello)
    async with AsyncOpenAI(api_key="sk-wrong", base_url=f"{ee.url}/v1", max_retries=2) as stranger:
        with pytest.raises(openai.AuthenticationError) as unknown:
            await stranger.models.list()
    assert unknown.value.code == "invalid_api_key"
