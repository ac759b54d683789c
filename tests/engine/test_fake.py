"""What tests rely on in the fake engine beyond the port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serving.engine.fake import FakeEngine
from serving.engine.port import EngineDead
from serving.types import Endpoint
from tests.contract.conftest import door
from tests.loopback import events, listening, streamed

ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell me of the sea."}], "seed": 3}


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    engine = FakeEngine(token_s=0.001)
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with listening(door(engine.app)) as base, httpx.AsyncClient(base_url=base) as client:
        yield client


async def said(client: httpx.AsyncClient, **fields: object) -> str:
    answer = (await client.post(Endpoint.CHAT, json={**ASKED, **fields})).json()
    text: str = answer["choices"][0]["message"]["content"]
    return text


async def test_a_continued_answer_goes_on_as_it_would_have(client: httpx.AsyncClient) -> None:
    whole = await said(client)
    begun = await said(client, max_tokens=5)
    assert whole.startswith(begun)
    messages = [*ASKED["messages"], {"role": "assistant", "content": begun}]
    rest = await said(client, messages=messages, continue_final_message=True, add_generation_prompt=False)
    assert begun + rest == whole


async def test_it_remembers_who_finished_and_who_left(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await client.post(Endpoint.CHAT, json=ASKED, headers={"x-request-id": "stayed"})
    engine.stall()
    with pytest.raises(httpx.ReadTimeout):
        await client.post(Endpoint.CHAT, json=ASKED, headers={"x-request-id": "left"}, timeout=0.2)
    async with asyncio.timeout(2):
        while not engine.aborted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (engine.finished, engine.aborted) == (["stayed"], ["left"])
    engine.resume()


async def test_a_death_tears_its_streams(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.stall()
    asking = asyncio.create_task(streamed(client, Endpoint.CHAT, ASKED))
    await asyncio.sleep(0.1)
    engine.die()
    with pytest.raises(httpx.RemoteProtocolError):
        await asking
    with pytest.raises(EngineDead):
        await engine.check()
    assert (await client.get("/health")).status_code == 503


async def test_a_dead_core_is_told_of_in_the_stream(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.die(torn=False)
    told = events(await streamed(client, Endpoint.CHAT, ASKED))
    assert told[0].json()["error"]["code"] == 500
    assert told[-1].data == "[DONE]"


async def test_a_stop_aborts_what_is_in_flight(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    asking = asyncio.create_task(client.post(Endpoint.CHAT, json={**ASKED, "max_tokens": 900, "ignore_eos": True}))
    await asyncio.sleep(0.1)
    await engine.stop()
    assert (await asking).json()["choices"][0]["finish_reason"] == "abort"


async def test_slots_make_the_others_wait() -> None:
    engine = FakeEngine(slots=1)
    await engine.start()
    engine.stall()
    async with listening(door(engine.app)) as base, httpx.AsyncClient(base_url=base) as client:
        asking = [asyncio.create_task(client.post(Endpoint.CHAT, json=ASKED)) for _ in range(3)]
        await asyncio.sleep(0.1)
        load = engine.load()
        assert (load.running, load.waiting) == (1, 2)
        assert load.outstanding_tokens > 0
        engine.resume()
        await asyncio.gather(*asking)
    assert engine.load().outstanding_tokens == 0
