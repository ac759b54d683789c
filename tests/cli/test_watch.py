from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import orjson
import pytest

from loadtests.record import Sample
from serving.cli import watch
from serving.cli.inventory import listening
from serving.cli.readings import metrics, values
from serving.cli.watch import Listening, Reader, Watch
from serving.engine.fake.metrics import Counters, text
from serving.engine.port import EngineFacts, Load
from serving.replicas.claim import CellKey
from serving.settings import Settings
from tests.house import SHIPPED, Land, Stand, land

FACTS = EngineFacts("fake", 4096, 1000)


@pytest.fixture
async def ee(tmp_path: Path) -> AsyncIterator[Land]:
    async with land(tmp_path / "home" / "countries", "ee", replicas=2) as found:
        yield found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "EVERY_S", 0.02)
    monkeypatch.setattr(watch, "SEARCH_S", 0.02)


def at(stand: Stand) -> Listening:
    address = stand.replica.address
    return Listening("ee", os.getpid(), address.host, address.port)


def samples(folder: Path) -> list[Sample]:
    file = folder / "samples.jsonl"
    lines = file.read_bytes().splitlines() if file.exists() else []
    return [Sample(**orjson.loads(line)) for line in lines]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is a file of another thread's
            await asyncio.sleep(0.01)


def watching(ee: Land, folder: Path, found: list[Listening]) -> Watch:
    # The cell key is the land's: tests put a country's ground where Settings looks for it.
    settings = Settings(home=ee.ground.directory.parents[1], countries=SHIPPED)
    return Watch([ee.country], settings, folder, lambda: list(found))


def start_clock(folder: Path, ahead_s: float = 0.0) -> None:
    (folder / "clock.json").write_bytes(orjson.dumps({"monotonic": time.monotonic() + ahead_s, "unix": time.time()}))


async def test_a_reading_needs_the_country_s_own_key(ee: Land) -> None:
    reader = Reader(at(ee.stands[0]), ee.cell_key)
    for _ in range(2):
        assert (await asyncio.to_thread(reader.read))["vllm:num_requests_running"] == 0
    stranger = Reader(at(ee.stands[0]), CellKey(bytes(32)))
    with pytest.raises(ValueError, match="404"):
        await asyncio.to_thread(stranger.read)


@pytest.mark.usefixtures("quick")
async def test_every_replica_is_sampled_on_the_run_s_clock(ee: Land, tmp_path: Path) -> None:
    with watching(ee, tmp_path, [at(stand) for stand in ee.stands]):
        start_clock(tmp_path)
        async with ee.client() as client:
            body = {"model": "fake", "messages": [{"role": "user", "content": "Hello"}]}
            while {one.source for one in samples(tmp_path)} != {"replica:ee:0", "replica:ee:1"}:
                assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
            ee.engine.stall()
            asking = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            await until(lambda: any(one.values["running"] == 1 for one in samples(tmp_path)))
            ee.engine.resume()
            await asking
    found = samples(tmp_path)
    assert all(0 <= one.at < 60 for one in found)
    assert any(one.values["output_tokens_per_s"] > 0 for one in found)
    assert any(one.values["outstanding_tokens"] > 0 for one in found)
    written = len(found)
    await asyncio.sleep(0.1)
    assert len(samples(tmp_path)) == written


@pytest.mark.usefixtures("quick")
async def test_a_replica_that_is_gone_is_a_gap_and_a_new_one_is_found(ee: Land, tmp_path: Path) -> None:
    first, second = ee.stands
    present = [at(first)]
    with watching(ee, tmp_path, present):
        start_clock(tmp_path)
        await until(lambda: len(samples(tmp_path)) > 2)
        await first.vanish()
        present[:] = [at(second)]
        await until(lambda: samples(tmp_path)[-1].source == "replica:ee:1")


@pytest.mark.usefixtures("quick")
async def test_nothing_is_written_before_time_zero(ee: Land, tmp_path: Path) -> None:
    with watching(ee, tmp_path, [at(stand) for stand in ee.stands]):
        start_clock(tmp_path, ahead_s=60)
        await asyncio.sleep(0.3)
    assert samples(tmp_path) == []


async def test_a_run_that_never_begins_is_not_waited_for(ee: Land, tmp_path: Path) -> None:
    with watching(ee, tmp_path, []):
        pass
    assert samples(tmp_path) == []


def test_values_are_states_and_rates() -> None:
    before = metrics(text(FACTS, Load(0, 0, 0), Counters(), 1000))
    counters = Counters(prompt_tokens=30, generation_tokens=10, queued=4, queued_s=2.0, held_tokens=250)
    now = metrics(text(FACTS, Load(3, 2, 77), counters, 1000))
    assert values(before, now, 2.0) == {
        "running": 3,
        "waiting": 2,
        "kv_cache_usage": 0.25,
        "outstanding_tokens": 77,
        "prompt_tokens_per_s": 15,
        "output_tokens_per_s": 5,
        "queue_s": 0.5,
    }
    assert "queue_s" not in values(now, now, 1.0)


def test_metrics_of_something_else_are_refused() -> None:
    with pytest.raises(ValueError, match="vllm:kv_cache_usage_perc"):
        metrics("up 1\n<html>no</html>\n")


def test_listeners_are_found_by_process_and_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = server.getsockname()
        assert here in listening(os.getpid(), {"127.0.0.1"})
        assert here not in listening(os.getpid(), {"127.0.0.2"})
    assert here not in listening(os.getpid(), {"127.0.0.1"})
