"""Receipts and keys as somebody asks for them who should not have them."""

from __future__ import annotations

import httpx
import pytest

from serving.records.record import Kind
from serving.records.refusals import SINGLY
from tests.house import Land
from tests.journeys.bodies import ASKED, CHAT

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = "rcpt_" + "0" * 26


async def receipt(land: Land) -> str:
    async with land.client() as client:
        return (await client.post(CHAT, json=ASKED[CHAT])).headers["x-domicile-receipt"]


def same(one: httpx.Response, other: httpx.Response) -> bool:
    """Whether an answer says nothing that the other does not."""
    told = ({name: value for name, value in each.headers.items() if name not in VARYING} for each in (one, other))
    return one.status_code == other.status_code and one.content == other.content and next(told) == next(told)


VARYING = {"x-request-id", "openai-processing-ms", "date"}


async def test_another_organisation_s_receipt_is_one_that_does_not_exist(ee: Land) -> None:
    id = await receipt(ee)
    async with ee.client("acme") as owner, ee.client("umbra") as other:
        assert (await owner.get(f"/v1/receipts/{id}")).status_code == 200
        theirs, none = await other.get(f"/v1/receipts/{id}"), await other.get(f"/v1/receipts/{GOOD}")
    assert theirs.status_code == 404
    assert same(theirs, none)


async def test_another_country_s_receipt_is_not_here_and_its_key_opens_nothing(ee: Land, kr: Land) -> None:
    id = await receipt(kr)
    async with ee.client() as client:
        assert (await client.get(f"/v1/receipts/{id}")).status_code == 404
    async with ee.client(None, Authorization=f"Bearer {kr.keys['acme']}") as client:
        refused = await client.get(f"/v1/receipts/{id}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "incorrect_hostname")


async def test_no_key_no_receipt(ee: Land) -> None:
    id = await receipt(ee)
    async with ee.client(None) as client:
        assert (await client.get(f"/v1/receipts/{id}")).status_code == 401


@pytest.mark.parametrize(
    "id",
    [
        "..%2f..%2fsigning%2fcurrent.pem",
        "../../signing/current.pem",
        "%2e%2e/receipts.sqlite",
        "rcpt_' OR 1=1 --",
        "rcpt_%00",
        GOOD.upper(),
        GOOD + "%0a",
        GOOD + "/",
        GOOD[:-1],
        "",
        "%ff%fe",
        "a" * 4000,
        "*",
    ],
)
async def test_ids_that_are_none(ee: Land, id: str) -> None:
    await receipt(ee)
    async with ee.client() as client:
        answer = await client.get(f"/v1/receipts/{id}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in ("receipt_not_found", "unknown_url")


@pytest.mark.parametrize("path", [f"/v1/receipts/{GOOD}", "/.well-known/jwks.json"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nothing_is_written_there(ee: Land, path: str, method: str) -> None:
    async with ee.client() as client:
        answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["/.well-known/", "/.well-known/jwks.json/", "/.well-known/../signing/current.pem"])
async def test_nothing_else_is_well_known(ee: Land, path: str) -> None:
    async with ee.client(None) as client:
        assert (await client.get(path)).status_code == 404


async def test_a_storm_of_keys_that_open_nothing_is_told_in_few_records(ee: Land) -> None:
    before = len(await ee.records(Kind.REFUSAL))
    async with ee.client(None, Authorization="Bearer sk-ee-nothing") as client:
        for _ in range(SINGLY + 30):
            assert (await client.get("/v1/models")).status_code == 401
    told = [each for each in (await ee.records(Kind.REFUSAL))[before:] if each["reason"] == "invalid_api_key"]
    assert len(told) <= SINGLY + 1
    assert sum(each.get("times", 1) for each in told) == SINGLY + 30
    assert {each["rule"] for each in told} == {"authenticate"}
