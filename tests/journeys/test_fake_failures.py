"""Clients that leave, replicas that drain, replicas that die: nothing is lost that need not be, nothing crosses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import httpx
import pytest

from serving.types import Endpoint
from tests.house import Land, Stand, land, lands
from tests.journeys.bodies import ASKED, CHAT, COMPLETIONS, RESPONSES, ask, look_at_headers
from tests.loopback import events
from tests.schemas import check

UNLIKE = {"stop": ["nothing that is ever said"]}
"""Enough to forbid that an answer is carried on by another replica."""


async def until(condition: Callable[[], object], within_s: float = 5.0) -> None:
    ends = perf_counter() + within_s
    while not condition():
        assert perf_counter() < ends, "it never came to be"
        await asyncio.sleep(0.005)


def busy(land: Land) -> Stand:
    """The replica that something is with."""
    (found,) = [stand for stand in land.stands if stand.engine.load().running]
    return found


def other(land: Land, stand: Stand) -> Stand:
    (found,) = [each for each in land.stands if each is not stand]
    return found


async def begun(client: httpx.AsyncClient, endpoint: Endpoint, **fields: object) -> httpx.Response:
    """A stream whose head has come."""
    body = {**ASKED[endpoint], "stream": True, **fields}
    return await client.send(client.build_request("POST", endpoint, json=body), stream=True)


@pytest.mark.parametrize("endpoint", list(Endpoint))
async def test_a_client_that_leaves_a_stream_aborts_it(tmp_path: Path, endpoint: Endpoint) -> None:
    async with land(tmp_path, token_s=0.02) as ee:
        async with ee.client() as client:
            response = await begun(client, endpoint)
            await anext(response.aiter_bytes())
            assert ee.engine.load().running == 1
            await response.aclose()
            await until(lambda: ee.engine.aborted)
        assert not ee.engine.finished
        assert ee.engine.load().running == 0
        assert ee.table.replicas("fake")[0].outstanding_tokens == 0


@pytest.mark.parametrize("endpoint", list(Endpoint))
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_anything_came_aborts_it(
    tmp_path: Path, endpoint: Endpoint, stream: bool
) -> None:
    async with land(tmp_path) as ee, ee.client() as client:
        ee.engine.stall()
        asking = asyncio.create_task(client.post(endpoint, json={**ASKED[endpoint], "stream": stream}))
        await until(lambda: ee.engine.load().running)
        asking.cancel()
        await until(lambda: ee.engine.aborted)
        assert not ee.engine.finished
        ee.engine.resume()
        await ask(client, endpoint)


async def test_one_that_leaves_disturbs_nobody_on_pooled_connections(tmp_path: Path) -> None:
    async with land(tmp_path, token_s=0.002) as ee, ee.client() as client:

        async def leave(after_s: float) -> None:
            asking = asyncio.create_task(client.post(CHAT, json=ASKED[CHAT]))
            await asyncio.sleep(after_s)
            asking.cancel()

        whole = (await ask(client, CHAT))["choices"]
        answers = asyncio.gather(*(ask(client, CHAT) for _ in range(20)))
        await asyncio.gather(*(leave(number * 0.004) for number in range(20)))
        assert all(answer["choices"] == whole for answer in await answers)


async def test_a_draining_replica_finishes_what_it_has_and_gets_nothing_new(tmp_path: Path) -> None:
    async with land(tmp_path, replicas=2, token_s=0.01) as ee, ee.client() as client:
        first = asyncio.create_task(ask(client, CHAT))
        await until(lambda: any(stand.engine.load().running for stand in ee.stands))
        leaving = busy(ee)
        draining = asyncio.create_task(leaving.server.drain(10))
        await until(lambda: leaving.server.draining)
        # The table does not know yet, and the same beginning draws to the same replica.
        await asyncio.gather(*(ask(client, CHAT) for _ in range(4)))
        assert len(leaving.engine.claims) == 1
        assert len(other(ee, leaving).engine.claims) == 4
        assert (await first)["choices"][0]["finish_reason"] == "stop"
        assert await draining
        ee.report(draining=[leaving])
        await ask(client, CHAT)
        assert len(leaving.engine.claims) == 1


@pytest.mark.parametrize("endpoint", list(Endpoint))
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["vanishes", "breaks off", "says so"])
async def test_a_replica_lost_before_its_first_byte_is_replaced(
    tmp_path: Path, endpoint: Endpoint, stream: bool, how: str
) -> None:
    async with land(tmp_path, replicas=2) as ee, ee.client() as client:
        whole = (await client.post(endpoint, json=ASKED[endpoint])).json()
        for stand in ee.stands:
            stand.engine.stall()
        asking = asyncio.create_task(client.post(endpoint, json={**ASKED[endpoint], "stream": stream}))
        await until(lambda: any(stand.engine.load().running for stand in ee.stands))
        lost = busy(ee)
        other(ee, lost).engine.resume()
        if how == "vanishes":
            await lost.vanish()
        else:
            lost.engine.die(torn=how == "breaks off")
        response = await asking
        if stream and endpoint is RESPONSES:
            # Two events come before anything is generated, so this one was lost in the middle.
            assert events(response.content)[-1].name == "error"
            return
        assert response.status_code == 200, response.text
        look_at_headers(response, "ee")
        if not stream:
            assert response.json().get("choices") == whole.get("choices")
        assert other(ee, lost).engine.finished


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, RESPONSES])
@pytest.mark.parametrize("how", ["vanishes", "breaks off", "says so", "is stopped"])
async def test_a_replica_lost_in_the_middle_ends_the_stream_with_an_error(
    tmp_path: Path, endpoint: Endpoint, how: str
) -> None:
    fields = {} if endpoint is RESPONSES else UNLIKE
    async with land(tmp_path, replicas=2, token_s=0.005) as ee, ee.client() as client:
        response = await begun(client, endpoint, **fields)
        raw = b""
        stopping = None
        async for data in response.aiter_bytes():
            raw += data
            if stopping is None and raw.count(b"\n\n") > 4:
                lost = busy(ee)
                if how == "vanishes":
                    stopping = asyncio.create_task(lost.vanish())
                elif how == "is stopped":
                    stopping = asyncio.create_task(lost.engine.stop())
                else:
                    lost.engine.die(torn=how == "breaks off")
                    stopping = asyncio.create_task(asyncio.sleep(0))
        if endpoint is RESPONSES and how == "is stopped":
            return
        *told, last = events(raw)
        assert b"[DONE]" not in raw
        assert len(told) >= 4
        if endpoint is RESPONSES:
            check("response_event", last.json())
            assert last.name == "error"
            assert last.json()["sequence_number"] == told[-1].json()["sequence_number"] + 1
        else:
            check("error", last.json())
            assert list(last.json()) == ["error"]
        assert last.json()["error"]["type"] in ("service_unavailable_error", "server_error")
        assert stopping is not None
        await stopping


async def test_a_request_that_ends_its_replicas_ends_two_and_no_more(tmp_path: Path) -> None:
    async with land(tmp_path, replicas=4) as ee, ee.client() as client:
        for stand in ee.stands:
            stand.engine.die()
        response = await client.post(CHAT, json={**ASKED[CHAT], "stream": True})
        assert response.status_code == 503
        assert sum(len(stand.engine.claims) for stand in ee.stands) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_with_all_replicas_gone_nobody_else_answers(tmp_path: Path, stream: bool) -> None:
    """R5: the neighbour is there, has room, and is not asked."""
    async with lands(tmp_path, "ee", "kr", replicas=2) as (ee, kr):
        for stand in ee.stands:
            await stand.vanish()
        async with ee.client() as client:
            for _ in range(3):
                response = await client.post(CHAT, json={**ASKED[CHAT], "stream": stream})
                assert response.status_code == 503
                look_at_headers(response, "ee")
                check("error", response.json())
                error = response.json()["error"]
                assert (error["type"], error["code"]) == ("service_unavailable_error", "server_is_overloaded")
                assert int(response.headers["retry-after"]) > 0
                assert response.headers["x-should-retry"] == "true"
        assert not any(stand.engine.claims for stand in kr.stands)
        async with ee.client(None) as client:
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()) == (503, {"status": "starting", "missing": ["fake"]})
        async with kr.client() as client:
            await ask(client, CHAT, "kr")


async def test_a_replica_that_comes_back_serves_again(tmp_path: Path) -> None:
    async with land(tmp_path) as ee, ee.client() as client:
        await ask(client, CHAT)
        (stand,) = ee.stands
        await stand.vanish()
        assert (await client.post(CHAT, json=ASKED[CHAT])).status_code == 503
        await stand.server.start(stand.replica.address.host, stand.replica.address.port)
        ee.table._avoided.clear()
        await ask(client, CHAT)


async def test_an_overloaded_engine_s_word_is_passed_on_and_does_not_count_against_it(tmp_path: Path) -> None:
    async with land(tmp_path) as ee, ee.client() as client:
        ee.stands[0].server.draining = True
        response = await client.post(CHAT, json=ASKED[CHAT])
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        ee.stands[0].server.draining = False
        await ask(client, CHAT)


async def test_what_was_interrupted_is_told_in_the_caller_s_language(tmp_path: Path) -> None:
    async with land(tmp_path, token_s=0.005) as ee, ee.client(**{"Accept-Language": "ru"}) as client:
        response = await begun(client, CHAT)
        lines = response.aiter_lines()
        await anext(lines)
        ee.engine.die()
        last = [line async for line in lines if line][-1]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] == "server_is_overloaded"
    assert any("\u0400" <= letter <= "\u04ff" for letter in error["message"])
