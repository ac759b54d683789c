"""R10: every answer has a receipt that a stranger can verify, and it is in the country's hash-chained log."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from serving.records import receipts
from serving.records.audit_verify import verify
from serving.records.jwks import PublicKeys
from serving.records.receipts import Outcome
from serving.records.record import Kind
from serving.types import Endpoint
from tests.house import Land
from tests.journeys.bodies import ASKED, CHAT

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("endpoint", list(Endpoint))
@pytest.mark.parametrize("stream", [False, True])
async def test_r10_a_stranger_needs_the_receipt_and_the_public_key(ee: Land, endpoint: Endpoint, stream: bool) -> None:
    async with ee.client() as client:
        answer = await client.post(endpoint, json={**ASKED[endpoint], "stream": stream})
        token = (await client.get(f"/v1/receipts/{answer.headers['x-domicile-receipt']}")).json()["receipt"]
    async with ee.client(None) as stranger:
        keys = PublicKeys.read((await stranger.get("/.well-known/jwks.json")).content)
    receipt = receipts.verify(token, keys, now=time.time())
    assert (receipt.country, receipt.organisation, receipt.outcome) == ("ee", "acme", Outcome.COMPLETED)
    assert receipt.request == answer.headers["x-request-id"]


async def test_r10_it_is_in_the_log_where_it_says(ee: Land) -> None:
    async with ee.client() as client:
        id = (await client.post(CHAT, json=ASKED[CHAT])).headers["x-domicile-receipt"]
    await ee.records(Kind.REQUEST)
    written = ee.receipt(id).audit
    lines = b"".join(path.read_bytes() for path in sorted(ee.journal.ground.audit_directory.glob("audit-*.jsonl")))
    record = json.loads(lines.splitlines()[written.seq - 1])
    assert (record["seq"], record["prev"], record["fields"]["receipt"]) == (written.seq, written.prev, id)


async def test_r10_a_bit_that_is_flipped_is_found_and_located_and_the_receipt_is_a_witness(
    ee: Land, tmp_path: Path
) -> None:
    async with ee.client() as client:
        ids = [(await client.post(CHAT, json=ASKED[CHAT])).headers["x-domicile-receipt"] for _ in range(3)]
    await ee.records(Kind.REQUEST)
    ground, copy = ee.journal.ground, tmp_path / "audit"
    shutil.copytree(ground.audit_directory, copy)
    seq = ee.receipt(ids[1]).audit.seq
    segment = next(copy.glob("audit-*.jsonl"))
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[seq - 1] = lines[seq - 1].replace(b'"organisation":"acme"', b'"organisation":"acmf"')
    segment.write_bytes(b"".join(lines))
    held = ee.receipt(ids[2]).audit
    verdict = verify(copy, ground.keys().public(), "ee", {held.seq - 1: held.prev})
    assert {(fault.place.segment, fault.place.line) for fault in verdict.faults} == {(segment.name, seq)}
    assert verify(ground.audit_directory, ground.keys().public(), "ee", {held.seq - 1: held.prev}).ok


async def test_r10_no_word_of_a_prompt_or_an_answer_is_in_records(ee: Land) -> None:
    """R7 too: the records room takes identifiers and numbers, and this is what comes of it."""
    body = {**ASKED[CHAT], "messages": [{"role": "user", "content": "kestrel-0451"}], "user": "kestrel-0451"}
    async with ee.client() as client:
        answer = await client.post(CHAT, json=body)
        await client.post(CHAT, json={**body, "model": "kestrel-0451"})
        await client.post(CHAT, json={**body, "kestrel-0451": 1})
        await client.get("/v1/receipts/kestrel-0451")
        await client.get("/kestrel-0451")
    said = answer.json()["choices"][0]["message"]["content"].split()[0]
    await ee.records(Kind.REFUSAL)
    ground = ee.journal.ground.audit_directory.parent
    for path in ground.rglob("*"):
        if path.is_file():
            assert b"kestrel-0451" not in path.read_bytes()
            assert f'"{said}'.encode() not in path.read_bytes()
