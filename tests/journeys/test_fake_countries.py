"""Two countries side by side: each serves its own, in its own language, and neither ever serves the other's."""

from __future__ import annotations

import asyncio

import pytest

from tests.house import Land
from tests.journeys.bodies import ASKED, CHAT, SEA, ask, look_at_headers

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_both_serve_at_once_each_from_its_own_replicas(ee: Land, kr: Land) -> None:
    before = {stand.replica.id: len(stand.engine.claims) for land in (ee, kr) for stand in land.stands}

    async def run(land: Land, times: int) -> None:
        async with land.client() as client:
            await asyncio.gather(*(ask(client, CHAT, land.country.code, seed=seed) for seed in range(times)))

    await asyncio.gather(run(ee, 6), run(kr, 9))
    for land, times in ((ee, 6), (kr, 9)):
        found = sum(len(stand.engine.claims) - before[stand.replica.id] for stand in land.stands)
        assert found == times


async def test_a_key_of_one_country_is_told_where_the_other_is(ee: Land, kr: Land) -> None:
    async with kr.client(None, Authorization=f"Bearer {ee.keys['acme']}") as client:
        response = await client.post(CHAT, json=ASKED[CHAT])
    assert response.status_code == 401
    look_at_headers(response, "kr")
    assert response.json()["error"]["code"] == "incorrect_hostname"
    assert f"{ee.url}/v1" in response.json()["error"]["message"]
    assert response.headers["content-language"] == "ko"


async def test_organisations_of_the_same_name_are_strangers(ee: Land, kr: Land) -> None:
    salts = []
    for land in (ee, kr):
        async with land.client() as client:
            await ask(client, CHAT, land.country.code, messages=[*SEA, *SEA])
        salts.append({claim.cache_salt for stand in land.stands for claim in stand.engine.claims})
    assert not salts[0] & salts[1]


async def test_each_speaks_its_own_language_first(ee: Land, kr: Land) -> None:
    found = []
    for land in (ee, kr):
        async with land.client() as client:
            response = await client.post(CHAT, json={**ASKED[CHAT], "model": "x"})
        found.append((response.headers["content-language"], response.json()["error"]["code"]))
    assert found == [("et", "model_not_found"), ("ko", "model_not_found")]
