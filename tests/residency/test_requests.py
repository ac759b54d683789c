"""R1, R3, R5 and R9: where a request may go, and what of it another may notice. End to end, over real sockets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.types import Endpoint
from tests.gateway.wire import answers, exchange
from tests.house import Land, lands
from tests.journeys.bodies import ASKED, CHAT, COMPLETIONS, RESPONSES, ask

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVERYWHERE = pytest.mark.parametrize("endpoint", list(Endpoint))
STREAMED = pytest.mark.parametrize("stream", [False, True])
LONG = " ".join(f"word{number}" for number in range(100))


async def post(land: Land, key: str, endpoint: Endpoint, **fields: object) -> httpx.Response:
    async with land.client(None, Authorization=f"Bearer {key}") as client:
        return await client.post(endpoint, json={**ASKED[endpoint], **fields})


@EVERYWHERE
@STREAMED
async def test_r1_only_the_key_s_country_sees_a_request(ee: Land, kr: Land, endpoint: Endpoint, stream: bool) -> None:
    before = len(ee.engine.claims), len(kr.engine.claims)
    assert (await post(ee, ee.keys["acme"], endpoint, stream=stream)).status_code == 200
    assert (await post(kr, ee.keys["acme"], endpoint, stream=stream)).status_code == 401
    assert (len(ee.engine.claims), len(kr.engine.claims)) == (before[0] + 1, before[1])


async def test_r1_a_foreign_replica_in_the_table_is_not_chosen(ee: Land, kr: Land) -> None:
    """Whatever the table says, the country is a filter."""
    foreign = kr.stands[0].replica
    before = len(kr.engine.claims)
    ee.table.report("fake", (foreign, replace(foreign, id="again")))
    assert (await post(ee, ee.keys["acme"], CHAT)).status_code == 503
    ee.table.report("fake", (foreign, ee.stands[0].replica))
    assert (await post(ee, ee.keys["acme"], CHAT)).status_code == 200
    assert len(kr.engine.claims) == before


async def test_r1_nor_would_it_serve_if_it_were(ee: Land, kr: Land) -> None:
    """A table that lies about the country meets a replica that does not believe it (R4)."""
    before = len(kr.engine.claims)
    ee.table.report("fake", (replace(kr.stands[0].replica, country="ee"),))
    try:
        assert (await post(ee, ee.keys["acme"], CHAT)).status_code == 500
    finally:
        ee.report()
    assert len(kr.engine.claims) == before


@EVERYWHERE
@pytest.mark.parametrize("extra", ["", "X-Domicile-Country: kr\r\n", "OpenAI-Organization: umbra\r\n"])
async def test_r3_a_request_at_the_wrong_country_is_refused_unread(
    ee: Land, kr: Land, endpoint: Endpoint, extra: str
) -> None:
    """The body never comes, and the answer does."""
    place = ee if extra else kr
    head = (
        f"POST {endpoint} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ee.keys['acme']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: 4000000\r\n{extra}\r\n"
    )
    (found,) = answers(await exchange(place.gateway, head.encode()))
    assert (found.status, found.code) == ((403, "data_residency_mismatch") if extra else (401, "incorrect_hostname"))


@EVERYWHERE
@STREAMED
@pytest.mark.parametrize("how", ["gone", "draining", "unknown", "overloaded"])
async def test_r5_a_country_that_is_down_is_down(tmp_path: Path, endpoint: Endpoint, stream: bool, how: str) -> None:
    async with lands(tmp_path, "ee", "kr") as (ee, kr):
        match how:
            case "gone":
                await ee.stands[0].vanish()
            case "draining":
                ee.report(draining=ee.stands)
            case "unknown":
                ee.table.report("fake", ())
            case _:
                ee.stands[0].server.draining = True
        response = await post(ee, ee.keys["acme"], endpoint, stream=stream)
        assert response.status_code == 503
        assert response.headers["x-domicile-country"] == "ee"
        assert int(response.headers["retry-after"]) > 0
        assert not kr.engine.claims
        assert (await post(kr, kr.keys["acme"], endpoint)).status_code == 200


async def test_r5_what_went_on_abroad_before_does_not_matter(tmp_path: Path) -> None:
    """The two gateways share this process, and the models' name; they share no table and no connection."""
    async with lands(tmp_path, "ee", "kr") as (ee, kr):
        for place in (ee, kr):
            assert (await post(place, place.keys["acme"], CHAT)).status_code == 200
        await ee.stands[0].vanish()
        for _ in range(3):
            assert (await post(ee, ee.keys["acme"], CHAT)).status_code == 503
        assert len(kr.engine.claims) == 1


def cached(answer: dict[str, Any]) -> int:
    usage = answer["usage"]
    details: dict[str, int] = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
    return details["cached_tokens"]


@pytest.mark.parametrize(
    ("endpoint", "name", "prompt"),
    [
        (CHAT, "messages", [{"role": "user", "content": LONG}]),
        (COMPLETIONS, "prompt", f"complete {LONG}"),
        (RESPONSES, "input", f"respond {LONG}"),
    ],
)
async def test_r9_organisations_do_not_share_a_prefix_cache(
    ee: Land, endpoint: Endpoint, name: str, prompt: object
) -> None:
    async with ee.client("acme") as acme, ee.client("umbra") as umbra:
        for client in (acme, umbra):
            assert cached(await ask(client, endpoint, "ee", **{name: prompt})) == 0
            assert cached(await ask(client, endpoint, "ee", **{name: prompt})) > 0


async def test_r9_the_salt_is_the_organisation_s_and_nothing_the_client_says_changes_it(ee: Land) -> None:
    before = len(ee.engine.claims)
    headers = {"x-domicile-claim": "v1.a.b", "cache-salt": "mine", "x-cache-salt": "mine"}
    async with ee.client("acme", **headers) as client:
        await ask(client, CHAT, prompt_cache_key="mine", user="mine", metadata={"cache_salt": "mine"})
        response = await client.post(CHAT, json={**ASKED[CHAT], "cache_salt": "mine"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "cache_salt")
    (claim,) = ee.engine.claims[before:]
    assert claim.cache_salt == ee.cell_key.cache_salt("acme")
    assert len(claim.cache_salt) == 64
    assert int(claim.cache_salt, 16)


async def test_r9_salts_differ_between_organisations_and_between_countries(ee: Land, kr: Land) -> None:
    salts = {place.cell_key.cache_salt(organisation) for place in (ee, kr) for organisation in ("acme", "umbra")}
    assert len(salts) == 4
