"""Links to a real replica that fail: the answer stays right, or ends with an error; the engine does not go on alone.

The gateway is the country's own, on its own ground, but lives in this process: it reaches the replica that ``up``
started through a proxy that can be told to fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from loadtests.mischief.faults import FaultProxy
from loadtests.mischief.lanes import Direction
from serving.cli.ports import free_port
from serving.gateway.house import Gateway
from serving.placement import Replica
from serving.replicas.table import Table
from serving.types import Address
from tenants.registry import load_country
from tests.journeys.faulty import Told, told, until
from tests.running import MODEL, RunningHouse

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]

QUESTION = "Tell me about the sea."
TOKENS = 24
ENDLESS = 3000
"""Tokens that take minutes: an engine that has fallen silent was told to stop."""


@pytest.fixture(scope="module")
def right(running_house: RunningHouse) -> str:
    """What is said where no link fails, at the country's own gateway."""
    answer = (
        running_house.countries["ee"]
        .sdk()
        .chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            max_tokens=TOKENS,
            extra_body={"ignore_eos": True},
        )
    )
    assert answer.choices[0].message.content
    return answer.choices[0].message.content


@dataclass
class Reach:
    """A gateway whose ways fail on demand: that of its client, and those to what it takes for two replicas."""

    client: httpx.AsyncClient
    front: FaultProxy
    behind: list[FaultProxy]
    table: Table

    async def ask(self, max_tokens: int = TOKENS, *, stream: bool = True) -> Told:
        fields = {"model": MODEL, "temperature": 0, "ignore_eos": True, "max_tokens": max_tokens}
        return await told(self.client, QUESTION, stream=stream, **fields)

    def heal(self) -> None:
        for link in (self.front, *self.behind):
            link.heal()
        self.table._avoided.clear()

    def outstanding(self) -> int:
        return sum(replica.outstanding_tokens for replica in self.table.replicas(MODEL))


@asynccontextmanager
async def reach(house: RunningHouse, ways: int = 1) -> AsyncIterator[Reach]:
    """Estonia's gateway. With two ways it takes its one replica for two, and goes on at the other when one fails."""
    country = load_country(house.settings.countries / "ee")
    here = country.model_copy(update={"gateway": country.gateway.model_copy(update={"port": free_port()})})
    private = urlsplit(house.replica_url("ee"))
    assert private.hostname is not None
    assert private.port is not None
    async with AsyncExitStack() as leaving:
        await leaving.enter_async_context(asyncio.timeout(120))
        behind = [await leaving.enter_async_context(FaultProxy(private.hostname, private.port)) for _ in range(ways)]
        table = Table()
        known = [
            Replica(f"r{at}", "ee", MODEL, Address("127.0.0.1", link.port), context_length=4096)
            for at, link in enumerate(behind)
        ]
        table.report(MODEL, tuple(known))
        gateway = Gateway(here, house.settings, {"ee": here.address}, table, "faulty")
        await gateway.start()
        leaving.push_async_callback(gateway.stop)
        front = await leaving.enter_async_context(FaultProxy("127.0.0.1", gateway.port))
        client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{front.port}",
            headers={"authorization": f"Bearer {house.countries['ee'].key}"},
            timeout=100,
        )
        yield Reach(await leaving.enter_async_context(client), front, behind, table)


async def silent(house: RunningHouse) -> None:
    """Wait until the replica's engine computes nothing."""
    workers = house.actor("ee", MODEL).children(recursive=True)
    async with asyncio.timeout(20):
        while await _cores(workers) > 0.15:
            pass


async def _cores(processes: list[psutil.Process]) -> float:
    """Cores that the processes use together, over half a second."""
    before = [process.cpu_times() for process in processes]
    await asyncio.sleep(0.5)
    after = [process.cpu_times() for process in processes]
    used: float = sum(b.user + b.system - a.user - a.system for a, b in zip(before, after, strict=True))
    return used / 0.5


async def test_slow_links_change_nothing(running_house: RunningHouse, right: str) -> None:
    async with reach(running_house) as here:
        for link in (here.front, *here.behind):
            link.latency(0.05, jitter_s=0.05)
            assert await here.ask() == Told(200, right, ["done"])
            here.heal()
            link.slice(7, pause_s=0.0002)
            assert await here.ask() == Told(200, right, ["done"])
            assert await here.ask(stream=False) == Told(200, right, ["done"])
            here.heal()
        assert here.outstanding() == 0


@pytest.mark.parametrize("direction", list(Direction))
async def test_a_stall_that_ends_costs_time_and_nothing_else(
    running_house: RunningHouse, right: str, direction: Direction
) -> None:
    async with reach(running_house) as here:
        here.behind[0].stall(direction)
        asking = asyncio.create_task(here.ask())
        done, _ = await asyncio.wait([asking], timeout=1)
        assert not done
        here.heal()
        assert await asking == Told(200, right, ["done"])


@pytest.mark.parametrize("how", ["reset", "half-close"])
@pytest.mark.parametrize("after", [1, 2500])
async def test_a_link_that_breaks_is_an_error_and_ends_the_generation(
    running_house: RunningHouse, right: str, how: str, after: int
) -> None:
    async with reach(running_house) as here:
        (link,) = here.behind
        link.reset(after) if how == "reset" else link.half_close(after=after)
        answer = await here.ask(ENDLESS)
        assert answer.ends == ["error"]
        assert answer.status == 200 if answer.text else answer.status in (200, 503)
        assert answer.text.startswith(right[: len(answer.text)])
        await silent(running_house)
        assert here.outstanding() == 0
        here.heal()
        assert await here.ask() == Told(200, right, ["done"])


async def test_a_link_that_breaks_is_mended_where_there_is_another(running_house: RunningHouse, right: str) -> None:
    async with reach(running_house, ways=2) as here:
        assert await here.ask() == Told(200, right, ["done"])
        (used,) = [link for link in here.behind if link.accepted]
        for how in ("reset", "half-close"):
            used.reset(2500) if how == "reset" else used.half_close(after=2500)
            assert await here.ask() == Told(200, right, ["done"])
            here.heal()
        assert all(link.accepted for link in here.behind)
        assert here.outstanding() == 0


@pytest.mark.parametrize("how", ["reset", "half-close"])
async def test_a_client_s_link_that_breaks_ends_the_generation(
    running_house: RunningHouse, right: str, how: str
) -> None:
    async with reach(running_house) as here:
        here.front.reset(2500) if how == "reset" else here.front.half_close(after=2500)
        answer = await here.ask(ENDLESS)
        assert answer.ends == ["broken"]
        assert answer.text.startswith(right[: len(answer.text)])
        await until(lambda: here.outstanding() == 0)
        await silent(running_house)
        here.heal()
        assert await here.ask() == Told(200, right, ["done"])
