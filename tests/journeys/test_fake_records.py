"""However an answer ends, it has one record and one receipt, and both say how (R10)."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from serving.records.audit_verify import verify
from serving.records.receipts import Outcome
from serving.records.record import Kind
from serving.types import Endpoint, Usage
from tests.house import Land, cut_after, land
from tests.journeys.bodies import ASKED, CHAT, COMPLETIONS, RESPONSES
from tests.journeys.faulty import until
from tests.loopback import events

LONG: dict[str, Any] = {"ignore_eos": True, "max_tokens": 30}


def sound(land: Land) -> bool:
    ground = land.journal.ground
    return verify(ground.audit_directory, ground.keys().public(), land.country.code).ok


async def stream(land: Land, endpoint: Endpoint = CHAT, **fields: Any) -> tuple[str, bytes]:
    """A streamed answer to its end: its receipt's id, and what came."""
    async with land.client() as client:
        answer = await client.post(endpoint, json={**ASKED[endpoint], "stream": True, **fields})
    assert answer.status_code == 200, answer.text
    return answer.headers["x-domicile-receipt"], answer.content


@pytest.mark.parametrize("endpoint", list(Endpoint))
async def test_a_client_that_leaves_is_accounted_for_what_was_generated(tmp_path: Path, endpoint: Endpoint) -> None:
    async with land(tmp_path, token_s=0.01) as ee, ee.client() as client:
        body = {**ASKED[endpoint], "stream": True}
        answer = await client.send(client.build_request("POST", endpoint, json=body), stream=True)
        lines = answer.aiter_lines()
        for _ in range(12):
            await anext(lines)
        await answer.aclose()
        await until(lambda: ee.engine.aborted)
        (record,) = await ee.records(Kind.REQUEST)
        receipt = ee.receipt(answer.headers["x-domicile-receipt"])
        (claim,) = ee.engine.claims
        assert receipt.outcome is Outcome.CLIENT_LEFT
        assert receipt.usage == ee.engine.spent(claim.request_id)
        assert receipt.usage.prompt_tokens > 0
        assert receipt.usage.completion_tokens > 0
        assert record["outcome"] == "client_left"


async def test_so_is_one_that_leaves_while_a_whole_answer_is_made(tmp_path: Path) -> None:
    async with land(tmp_path, token_s=0.01) as ee, ee.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json=ASKED[CHAT]))
        await until(lambda: ee.engine.load().running)
        asking.cancel()
        await until(lambda: ee.engine.aborted)
        (record,) = await ee.records(Kind.REQUEST)
        assert record["outcome"] == "client_left"
        assert ee.receipt(record["receipt"]).usage.prompt_tokens == record["prompt_tokens"] > 0


@pytest.mark.parametrize("how", ["vanishes", "breaks off", "says so"])
async def test_an_answer_carried_on_by_another_replica_has_one_receipt_with_all_of_its_tokens(
    tmp_path: Path, how: str
) -> None:
    async with land(tmp_path, replicas=2) as ee:
        whole, _ = await stream(ee, **LONG)
        await ee.records(Kind.REQUEST)
        expected = ee.receipt(whole).usage
        first = {claim.request_id for stand in ee.stands for claim in stand.engine.claims}
        lost = cut_after(ee, 7, how)
        id, raw = await stream(ee, **LONG)
        assert lost
        assert events(raw)[-1].data == "[DONE]"
        assert b'"usage"' not in raw
        _, record = await ee.records(Kind.REQUEST)
        receipt = ee.receipt(id)
        assert (record["receipt"], receipt.outcome) == (id, Outcome.COMPLETED)
        assert (receipt.usage.prompt_tokens, receipt.usage.completion_tokens) == (
            expected.prompt_tokens,
            expected.completion_tokens,
        )
        (carried,) = [stand for stand in ee.stands if stand is not lost[0]]
        assert receipt.node == carried.replica.node
        assert len({claim.request_id for stand in ee.stands for claim in stand.engine.claims} - first) == 2


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, RESPONSES])
async def test_an_answer_that_is_cut_off_says_so(tmp_path: Path, endpoint: Endpoint) -> None:
    async with land(tmp_path) as ee:
        lost = cut_after(ee, 5)
        id, raw = await stream(ee, endpoint)
        assert lost
        assert b"error" in events(raw)[-1].data.encode()
        (record,) = await ee.records(Kind.REQUEST)
        assert (record["receipt"], record["outcome"]) == (id, "interrupted")
        assert ee.receipt(id).node == "node-of-ee-0"
        if endpoint is not RESPONSES:
            # The engine that knew the rest is gone: what went out is what is known.
            assert 4 <= record["completion_tokens"] <= 5


async def test_an_engine_that_lives_says_what_a_cut_answer_cost(tmp_path: Path) -> None:
    async with land(tmp_path) as ee:
        cut_after(ee, 5, "says so")
        id, _ = await stream(ee, stop=["never said"])
        await ee.records(Kind.REQUEST)
        (claim,) = ee.engine.claims
        assert ee.receipt(id).usage == ee.engine.spent(claim.request_id)
        assert ee.receipt(id).usage.completion_tokens == 5


async def test_what_was_lost_before_its_first_byte_is_served_by_another_and_recorded_once(tmp_path: Path) -> None:
    async with land(tmp_path, replicas=2) as ee:
        lost = cut_after(ee, 0)
        id, _ = await stream(ee)
        (record,) = await ee.records(Kind.REQUEST)
        assert record["receipt"] == id
        assert record["node"] != lost[0].replica.node
        assert not await ee.records(Kind.REFUSAL)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
async def test_where_nothing_can_be_recorded_nothing_is_served_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A full disk, one that was made read-only, one that breaks: fail closed, and on again where it was left."""
    async with land(tmp_path, token_s=0.01) as ee, ee.client() as client:
        body = {**ASKED[CHAT], "stream": True}
        running = await client.send(client.build_request("POST", CHAT, json=body), stream=True)
        # What was noted before, of the replica that came, is to be written before: the next answer is let in.
        assert not await ee.records(Kind.REQUEST)
        syncs = os.fdatasync

        def failing(_: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fdatasync", failing)
        assert (await client.post(CHAT, json=ASKED[CHAT])).status_code == 200
        await until(lambda: not ee.journal.healthy)
        refused = await client.post(CHAT, json=ASKED[CHAT])
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_is_overloaded")
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["x-should-retry"] == "true"
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "records unavailable"})
        assert (await client.get("/healthz")).status_code == 200
        served = len(ee.engine.claims)
        # What was let in goes on to its end.
        assert (await running.aread()).endswith(b"data: [DONE]\n\n")
        monkeypatch.setattr(os, "fdatasync", syncs)
        await until(lambda: ee.journal.healthy)
        assert (await client.post(CHAT, json=ASKED[CHAT])).status_code == 200
        requests = await ee.records(Kind.REQUEST)
        assert [each["outcome"] for each in requests] == ["completed"] * 3
        assert running.headers["x-domicile-receipt"] in {each["receipt"] for each in requests}
        assert len(ee.engine.claims) == served + 1
        (told,) = await ee.records(Kind.REFUSAL)
        assert (told["rule"], told["reason"]) == ("r10", "records_unavailable")
        assert sound(ee)


async def test_a_house_that_cannot_record_does_not_open(tmp_path: Path) -> None:
    (tmp_path / "ee" / "countries" / "ee").mkdir(parents=True)
    (tmp_path / "ee" / "countries" / "ee" / "records").write_text("in the way")
    with pytest.raises(Exception, match="cannot write records"):
        async with land(tmp_path):
            pass


async def test_a_clock_that_jumps_leaves_a_log_that_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time_ns
    async with land(tmp_path) as ee:
        ids = []
        for hours in (0, -6, 3):
            monkeypatch.setattr(time, "time_ns", lambda by=hours: real() + by * 3_600_000_000_000)
            id, _ = await stream(ee)
            ids.append(id)
            await ee.records(Kind.REQUEST)
        monkeypatch.undo()
        assert [each["receipt"] for each in await ee.records(Kind.REQUEST)] == ids
        assert sound(ee)
        assert all(ee.receipt(id).outcome is Outcome.COMPLETED for id in ids)


async def test_the_house_leaves_nothing_unwritten(tmp_path: Path) -> None:
    async with land(tmp_path) as ee:
        ids = [(await stream(ee))[0] for _ in range(5)]
    assert [ee.journal.receipt(id, "acme") for id in ids]
    assert sound(ee)
    ee.journal.close()


async def test_usage_of_an_answer_that_nobody_counted_is_zero_and_not_invented(tmp_path: Path) -> None:
    """A client that leaves, and its replica with it before it could be asked."""
    async with land(tmp_path, token_s=0.05) as ee, ee.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json=ASKED[CHAT]))
        await until(lambda: ee.engine.load().running)
        ee.engine._spending._costs.clear()
        asking.cancel()
        await until(lambda: ee.engine.aborted)
        (record,) = await ee.records(Kind.REQUEST)
        assert ee.receipt(record["receipt"]).usage == Usage(0, 0, 0)


async def test_replicas_that_come_and_go_are_recorded_as_the_gateway_sees_them(tmp_path: Path) -> None:
    async with land(tmp_path, replicas=2) as ee:
        ee.report()
        ee.report(ee.stands[1])
        ee.report()
        found = [(each["action"], each["replica"]) for each in await ee.records(Kind.PLACEMENT)]
        assert found == [("joined", "ee-0"), ("joined", "ee-1"), ("left", "ee-0"), ("joined", "ee-0")]
