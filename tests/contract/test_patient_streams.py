"""Class ``batch`` gets its tokens several at a time, and loses nothing by it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator

from serving.engine.port import Engine
from serving.types import Endpoint, ServiceClass
from tests.contract.conftest import door
from tests.contract.test_engine import ASKED, CHAT, COMPLETIONS, WEATHER, ask, ask_stream, question, text_of
from tests.loopback import Event, listening

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def patient(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of class ``batch``."""
    headers = {"x-service-class": ServiceClass.BATCH}
    async with (
        listening(door(engine.app)) as base,
        httpx.AsyncClient(base_url=base, timeout=60, headers=headers) as client,
    ):
        yield client


def texts(chunks: list[Event]) -> list[str]:
    """The pieces of text, those without any left out."""
    return [text for chunk in chunks if chunk.json()["choices"] and (text := text_of([chunk]))]


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"stop": ["e"]}, {"max_tokens": 1}, {"max_tokens": 5}])
async def test_the_stream_says_what_the_whole_answer_says(
    patient: httpx.AsyncClient, engine: Engine, endpoint: Endpoint, fields: dict[str, Any]
) -> None:
    whole = (await ask(patient, endpoint, question(engine, endpoint, **fields)))["choices"]
    chunks = (await ask_stream(patient, endpoint, question(engine, endpoint, **fields)))[:-1]
    for choice in whole:
        said = choice["text"] if endpoint is COMPLETIONS else choice["message"]["content"]
        assert text_of(chunks, choice["index"]) == said


async def test_a_call_streams_whole(patient: httpx.AsyncClient, engine: Engine) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    body = question(engine, CHAT, tools=[tool], tool_choice="required", max_tokens=120)
    chunks = (await ask_stream(patient, CHAT, body))[:-1]
    deltas = [call for chunk in chunks for call in chunk.json()["choices"][0]["delta"].get("tool_calls", [])]
    assert deltas[0]["function"]["name"] == "weather"
    arguments = "".join(delta["function"].get("arguments") or "" for delta in deltas)
    Draft202012Validator(WEATHER).validate(json.loads(arguments))


async def test_every_token_has_its_log_probability(patient: httpx.AsyncClient, engine: Engine) -> None:
    body = question(engine, CHAT, logprobs=True, stream_options={"include_usage": True})
    *chunks, usage, _ = await ask_stream(patient, CHAT, body)
    told = [choice["logprobs"] for chunk in chunks for choice in chunk.json()["choices"] if choice.get("logprobs")]
    tokens = [token for one in told for token in one["content"]]
    assert len(tokens) == usage.json()["usage"]["completion_tokens"]


@pytest.mark.engine
async def test_the_first_token_comes_by_itself_and_the_others_in_fewer_pieces(vllm_engine: Engine) -> None:
    body = {**question(vllm_engine, CHAT), "messages": ASKED[CHAT]["messages"], "max_tokens": 24, "min_tokens": 24}

    async def pieces(service_class: ServiceClass) -> list[str]:
        async with (
            listening(door(vllm_engine.app)) as base,
            httpx.AsyncClient(base_url=base, timeout=60, headers={"x-service-class": service_class}) as client,
        ):
            return texts((await ask_stream(client, CHAT, body))[:-1])

    hurried, patient = await pieces(ServiceClass.STANDARD), await pieces(ServiceClass.BATCH)
    assert "".join(patient) == "".join(hurried)
    assert patient[0] == hurried[0]
    assert len(patient) < len(hurried) / 2
