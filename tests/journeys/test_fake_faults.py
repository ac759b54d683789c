"""Links that fail, before the gateway and behind it: an answer is whole and right, or says or shows that it is not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.mischief.faults import FaultProxy
from loadtests.mischief.lanes import Direction
from serving.types import Address
from tests.house import MODEL, Land, Stand, land
from tests.journeys.faulty import Told, look_at, told, until

QUESTIONS = tuple(f"Tell me of the {thing}." for thing in ("sea", "sky", "woods", "wind", "snow"))
TOKENS = 24
LIMIT_S = 30


@dataclass
class Site:
    """A country whose links all fail on demand."""

    ee: Land
    front: FaultProxy
    behind: list[FaultProxy]
    client: httpx.AsyncClient

    @property
    def links(self) -> list[FaultProxy]:
        return [self.front, *self.behind]

    def heal(self) -> None:
        for link in self.links:
            link.heal()
        # Nobody has to be left alone for what the link did.
        self.ee.table._avoided.clear()

    async def ask(self, question: str, **fields: Any) -> Told:
        return await told(self.client, question, **{"model": MODEL, "max_tokens": TOKENS, "ignore_eos": True, **fields})

    async def right(self) -> dict[str, str]:
        """What is said to each question where nothing is wrong."""
        answers = await asyncio.gather(*(self.ask(question) for question in QUESTIONS))
        assert all(each.ends == ["done"] for each in answers)
        return {question: each.text for question, each in zip(QUESTIONS, answers, strict=True)}

    async def at_rest(self) -> None:
        """Wait until nothing is left of any request, at the gateway or at a replica."""
        await until(lambda: all(_idle(stand) for stand in self.ee.stands))
        await until(lambda: not any(replica.outstanding_tokens for replica in self.ee.table.replicas(MODEL)))
        for stand in self.ee.stands:
            claims = [claim.request_id for claim in stand.engine.claims]
            assert sorted(claims) == sorted(stand.engine.finished + stand.engine.aborted), "each ended, and once"


def _idle(stand: Stand) -> bool:
    load = stand.engine.load()
    return (stand.server.in_flight, load.running, load.waiting, load.outstanding_tokens) == (0, 0, 0, 0)


@asynccontextmanager
async def site(home: Path, replicas: int = 2, token_s: float = 0.002, seed: int = 0) -> AsyncIterator[Site]:
    async with AsyncExitStack() as leaving:
        await leaving.enter_async_context(asyncio.timeout(LIMIT_S))
        ee = await leaving.enter_async_context(land(home, replicas=replicas, token_s=token_s))
        behind = []
        for stand in ee.stands:
            address = stand.replica.address
            proxy = await leaving.enter_async_context(FaultProxy(address.host, address.port, seed=seed))
            stand.replica = replace(stand.replica, address=Address("127.0.0.1", proxy.port))
            behind.append(proxy)
        ee.report()
        front = await leaving.enter_async_context(FaultProxy("127.0.0.1", ee.gateway.port, seed=seed))
        keys = {"Authorization": f"Bearer {ee.keys['acme']}"}
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{front.port}", headers=keys, timeout=20)
        yield Site(ee, front, behind, await leaving.enter_async_context(client))


@pytest.mark.parametrize("where", ["front", "behind"])
@pytest.mark.parametrize("fault", ["latency", "slices of one", "slices"])
async def test_slow_links_change_nothing(tmp_path: Path, where: str, fault: str) -> None:
    async with site(tmp_path, token_s=0) as here:
        right = await here.right()
        for link in here.behind if where == "behind" else [here.front]:
            if fault == "latency":
                link.latency(0.01, jitter_s=0.01)
            else:
                link.slice(1 if fault == "slices of one" else 23)
        for stream in (True, False):
            asking = [here.ask(question, stream=stream) for question in QUESTIONS]
            for answer, question in zip(await asyncio.gather(*asking), QUESTIONS, strict=True):
                assert answer == Told(200, right[question], ["done"])
        await here.at_rest()


@pytest.mark.parametrize("where", ["front", "behind"])
@pytest.mark.parametrize("direction", list(Direction))
async def test_a_stall_that_ends_costs_time_and_nothing_else(tmp_path: Path, where: str, direction: Direction) -> None:
    async with site(tmp_path) as here:
        right = await here.right()
        for link in here.behind if where == "behind" else [here.front]:
            link.stall(direction)
        asking = [asyncio.create_task(here.ask(question)) for question in QUESTIONS]
        done, _ = await asyncio.wait(asking, timeout=0.2)
        assert not done
        here.heal()
        for answer, question in zip(await asyncio.gather(*asking), QUESTIONS, strict=True):
            assert answer == Told(200, right[question], ["done"])
        await here.at_rest()


@pytest.mark.parametrize("how", ["reset", "half-close"])
@pytest.mark.parametrize("after", [1, 900, 2500])
async def test_a_link_to_a_replica_that_breaks_is_mended_by_another(tmp_path: Path, how: str, after: int) -> None:
    async with site(tmp_path) as here:
        right = await here.right()
        for stand in here.ee.stands:
            stand.engine.stall()
        asking = asyncio.create_task(here.ask(QUESTIONS[0]))
        await until(lambda: any(stand.engine.load().running for stand in here.ee.stands))
        (serving,) = [at for at, stand in enumerate(here.ee.stands) if stand.engine.load().running]
        link = here.behind[serving]
        link.reset(after) if how == "reset" else link.half_close(after=after)
        for stand in here.ee.stands:
            stand.engine.resume()
        assert await asking == Told(200, right[QUESTIONS[0]], ["done"])
        assert here.ee.stands[serving].engine.aborted
        here.heal()
        await here.at_rest()


@pytest.mark.parametrize("how", ["reset", "half-close"])
@pytest.mark.parametrize("after", [0, 1, 900, 2500])
async def test_without_another_the_answer_ends_with_an_error(tmp_path: Path, how: str, after: int) -> None:
    async with site(tmp_path, replicas=1) as here:
        right = await here.right()
        (link,) = here.behind
        link.reset(after) if how == "reset" else link.half_close(after=after)
        answer = await here.ask(QUESTIONS[0])
        look_at(answer, right[QUESTIONS[0]])
        assert answer.ends == ["error"]
        assert answer.status == 200 if answer.text else answer.status in (200, 503)
        here.heal()
        assert await here.right() == right
        await here.at_rest()


@pytest.mark.parametrize("how", ["reset", "half-closed to the client", "half-closed to the server"])
@pytest.mark.parametrize("after", [0, 1500])
async def test_a_client_s_link_that_breaks_ends_the_generation(tmp_path: Path, how: str, after: int) -> None:
    async with site(tmp_path, replicas=1) as here:
        right = await here.right()
        here.ee.engine.stall()
        asking = asyncio.create_task(here.ask(QUESTIONS[0], max_tokens=3000))
        await until(lambda: here.ee.engine.load().running)
        if how == "reset":
            here.front.reset(after)
        elif how == "half-closed to the client":
            here.front.half_close(after=after)
        else:
            here.front.half_close(Direction.TO_SERVER)
        here.ee.engine.resume()
        answer = await asking
        assert answer.ends == ["broken"]
        assert answer.text.startswith(right[QUESTIONS[0]]) or right[QUESTIONS[0]].startswith(answer.text)
        await here.at_rest()
        assert len(here.ee.engine.aborted) == 1
        here.heal()
        assert await here.right() == right


async def test_who_leaves_while_nothing_reaches_him_is_noticed(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        here.front.stall(Direction.TO_CLIENT)
        asking = asyncio.create_task(here.ask(QUESTIONS[0], max_tokens=3000))
        await until(lambda: any(stand.engine.load().running for stand in here.ee.stands))
        asking.cancel()
        await here.at_rest()
        assert sum(len(stand.engine.aborted) for stand in here.ee.stands) == 1


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_befalls_the_links_no_token_is_wrong_and_nothing_is_left(tmp_path: Path, seed: int) -> None:
    draws = random.Random(seed)
    async with site(tmp_path, seed=seed) as here:
        right = await here.right()

        async def one(number: int) -> tuple[str, Told]:
            await asyncio.sleep(draws.uniform(0, 0.3))
            question = QUESTIONS[number % len(QUESTIONS)]
            return question, await here.ask(question, stream=number % 3 > 0)

        asking = [asyncio.create_task(one(number)) for number in range(24)]
        for _ in range(20):
            befall(draws, draws.choice(here.links))
            await asyncio.sleep(draws.uniform(0, 0.03))
            if draws.random() < 0.3:
                draws.choice(here.links).heal()
        here.heal()
        for question, answer in await asyncio.gather(*asking):
            look_at(answer, right[question])
        await here.at_rest()
        here.heal()
        assert await here.right() == right
        await here.at_rest()


def befall(draws: random.Random, link: FaultProxy) -> None:
    way = draws.choice([Direction.TO_SERVER, Direction.TO_CLIENT])
    match draws.choice(["latency", "slice", "stall", "reset", "half-close"]):
        case "latency":
            link.latency(draws.uniform(0, 0.02), draws.uniform(0, 0.02))
        case "slice":
            link.slice(draws.randrange(1, 200), draws.uniform(0, 0.001))
        case "stall":
            link.stall(draws.choice(list(Direction)))
        case "reset":
            link.reset(draws.randrange(4000))
        case _:
            link.half_close(way, draws.randrange(4000))
