"""Receipts at the door: the id on every answer, the receipt for who may have it, the keys for everybody."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from serving.records.receipts import ID, Outcome
from serving.records.record import Kind
from serving.types import Endpoint, Usage
from tests.house import DIGEST, MODEL, Land, land
from tests.journeys.bodies import ASKED, CHAT, RESPONSES
from tests.loopback import events
from tests.schemas import check

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ee(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Land]:
    async with land(tmp_path_factory.mktemp("home")) as found:
        yield found


def told(usage: dict[str, Any]) -> Usage:
    """What an answer's own usage says."""
    if "input_tokens" in usage:
        return Usage(usage["input_tokens"], usage["output_tokens"], usage["input_tokens_details"]["cached_tokens"])
    details = usage["prompt_tokens_details"]
    return Usage(usage["prompt_tokens"], usage["completion_tokens"], details["cached_tokens"])


@pytest.mark.parametrize("endpoint", list(Endpoint))
async def test_a_whole_answer_has_one_that_says_what_the_answer_says(ee: Land, endpoint: Endpoint) -> None:
    async with ee.client() as client:
        answer = await client.post(endpoint, json=ASKED[endpoint])
        id = answer.headers["x-domicile-receipt"]
        assert ID.fullmatch(id)
        fetched = await client.get(f"/v1/receipts/{id}")
    assert fetched.status_code == 200
    assert fetched.json()["receipt"] == ee.journal.receipt(id, "acme")
    receipt = ee.receipt(id)
    assert receipt.usage == told(answer.json()["usage"])
    assert (receipt.id, receipt.request) == (id, answer.headers["x-request-id"])
    assert (receipt.country, receipt.site) == ("ee", answer.headers["x-domicile-site"])
    assert (receipt.model, receipt.model_digest, receipt.node) == (MODEL, DIGEST, "node-of-ee-0")
    assert (receipt.policy_digest, receipt.outcome) == (ee.country.policy_digest, Outcome.COMPLETED)


@pytest.mark.parametrize("endpoint", list(Endpoint))
@pytest.mark.parametrize(
    "options", [{}, {"stream_options": None}, {"stream_options": {"include_usage": False}}, {"n": 2}]
)
async def test_a_stream_that_did_not_ask_for_usage_gets_none_and_its_receipt_has_it(
    ee: Land, endpoint: Endpoint, options: dict[str, Any]
) -> None:
    if endpoint is RESPONSES:
        options = {}
    async with ee.client() as client:
        whole = (
            await client.post(endpoint, json={**ASKED[endpoint], **{k: v for k, v in options.items() if k == "n"}})
        ).json()
        answer = await client.post(endpoint, json={**ASKED[endpoint], "stream": True, **options})
    assert answer.status_code == 200
    if endpoint is not RESPONSES:
        assert b'"usage"' not in answer.content
        assert events(answer.content)[-1].data == "[DONE]"
    usage = ee.receipt(answer.headers["x-domicile-receipt"]) if await ee.records(Kind.REQUEST) else None
    assert usage is not None
    expected = told(whole["usage"])
    assert (usage.usage.prompt_tokens, usage.usage.completion_tokens) == (
        expected.prompt_tokens,
        expected.completion_tokens,
    )


async def test_a_stream_that_asked_gets_the_usage_that_its_receipt_has(ee: Land) -> None:
    body = {**ASKED[CHAT], "stream": True, "stream_options": {"include_usage": True}}
    async with ee.client() as client:
        answer = await client.post(CHAT, json=body)
    *_, last, _ = events(answer.content)
    await ee.records(Kind.REQUEST)
    assert ee.receipt(answer.headers["x-domicile-receipt"]).usage == told(last.json()["usage"])


async def test_every_answer_is_in_the_log_once_with_its_caller(ee: Land) -> None:
    before = len(await ee.records(Kind.REQUEST))
    async with ee.client() as client:
        answers = [await client.post(CHAT, json={**ASKED[CHAT], "stream": stream}) for stream in (False, True)]
    found = (await ee.records(Kind.REQUEST))[before:]
    assert [each["receipt"] for each in found] == [answer.headers["x-domicile-receipt"] for answer in answers]
    assert {each["organisation"] for each in found} == {"acme"}
    assert {each["key"] for each in found} == {ee.key_ids[ee.keys["acme"]]}
    assert {each["endpoint"] for each in found} == {"chat"}


async def test_a_refusal_has_none(ee: Land) -> None:
    async with ee.client() as client:
        refused = await client.post(CHAT, json={**ASKED[CHAT], "n": 10**9})
    assert refused.status_code == 400
    assert "x-domicile-receipt" not in refused.headers


@pytest.mark.parametrize("language", ["en", "et", "ko", "ar"])
async def test_one_that_is_not_there_is_not_found_in_the_caller_s_language(ee: Land, language: str) -> None:
    async with ee.client(**{"Accept-Language": language}) as client:
        missing = await client.get("/v1/receipts/rcpt_nothing")
    assert missing.status_code == 404
    check("error", missing.json())
    assert missing.json()["error"]["code"] == "receipt_not_found"
    assert missing.json()["error"]["param"] == "id"


async def test_the_public_keys_need_no_key_and_show_retired_ones(ee: Land) -> None:
    async with ee.client(None) as client:
        first = await client.get("/.well-known/jwks.json")
        assert first.status_code == 200
        assert first.headers["cache-control"] == "public, max-age=300"
        ee.journal.ground.keys().rotate(time.time())
        second = (await client.get("/.well-known/jwks.json")).json()["keys"]
    (old,) = first.json()["keys"]
    assert [entry["kid"] == old["kid"] for entry in second] == [False, True]
    assert "exp" in second[1]
    assert not [entry for entry in second if "d" in entry]
