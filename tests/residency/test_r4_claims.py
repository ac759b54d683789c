"""R4: a replica serves nothing without a claim for its own country, whoever sends it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from serving.engine.port import METRICS
from serving.records.record import Kind
from serving.replicas.claim import HEADER, CellKey, Claim
from serving.replicas.server import ALLOWED
from serving.types import SPENT, ServiceClass
from tests.house import Land
from tests.journeys.bodies import ASKED, CHAT, COMPLETIONS

pytestmark = pytest.mark.asyncio(loop_scope="module")

serial = iter(range(10**6))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replica(ee: Land) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{ee.stands[0].replica.address}", timeout=10) as client:
        yield client


def claim(**fields: object) -> Claim:
    now = time.time()
    said: dict[str, object] = {
        "country": "ee",
        "organisation": "acme",
        "request_id": f"req_{next(serial)}",
        "service_class": ServiceClass.STANDARD,
        "path": str(CHAT.value),
        "deadline": now + 60,
        "expiry": now + 20,
        **fields,
    }
    return Claim(**said)  # type: ignore[arg-type]


async def ask(replica: httpx.AsyncClient, token: str | bytes | None, path: str = CHAT) -> int:
    headers = {} if token is None else {HEADER: token}
    response = await replica.post(path, json=ASKED[CHAT], headers=headers)  # type: ignore[arg-type]
    if response.status_code != 200:
        assert "choices" not in response.text
    return response.status_code


async def test_r4_a_claim_of_the_country_is_served(ee: Land, replica: httpx.AsyncClient) -> None:
    assert await ask(replica, ee.cell_key.sign(claim())) == 200


@pytest.mark.parametrize("path", sorted(ALLOWED))
@pytest.mark.parametrize("token", [None, "", "v1", "v1..", "Bearer x", "\xff", b"v1.\xff\xfe.AAAA", "x" * 8000])
async def test_r4_none_or_nonsense(ee: Land, replica: httpx.AsyncClient, path: str, token: str | bytes | None) -> None:
    before = len(ee.engine.claims)
    raw = token.encode("latin-1") if isinstance(token, str) else token
    assert await ask(replica, raw, path) == 403
    assert len(ee.engine.claims) == before


async def test_r4_a_key_of_the_country_is_no_claim(ee: Land, replica: httpx.AsyncClient) -> None:
    response = await replica.post(CHAT, json=ASKED[CHAT], headers={"Authorization": f"Bearer {ee.keys['acme']}"})
    assert response.status_code == 403


async def test_r4_a_foreign_claim_by_a_foreign_key(kr: Land, replica: httpx.AsyncClient) -> None:
    for country in ("kr", "ee"):
        assert await ask(replica, kr.cell_key.sign(claim(country=country))) == 403


async def test_r4_a_foreign_claim_by_the_country_s_own_key(ee: Land, replica: httpx.AsyncClient) -> None:
    assert await ask(replica, ee.cell_key.sign(claim(country="kr"))) == 403
    assert await ask(replica, ee.cell_key.sign(claim(country="EE"))) == 403


async def test_r4_a_forged_one(ee: Land, replica: httpx.AsyncClient) -> None:
    version, payload, mac = ee.cell_key.sign(claim()).split(".")
    _, other, _ = ee.cell_key.sign(claim(organisation="umbra")).split(".")
    for forged in (
        f"{version}.{other}.{mac}",
        f"{version}.{payload}.",
        f"{version}.{payload}",
        f"v2.{payload}.{mac}",
        f"none.{payload}.{mac}",
        f"{version}.{payload}.{mac}.{mac}",
        CellKey(bytes(32)).sign(claim()),
    ):
        assert await ask(replica, forged) == 403
    assert await ask(replica, f"{version}.{payload}.{mac}") == 200


@pytest.mark.parametrize("lifetime_s", [-1.0, -1000.0, 36.0, 86_400.0, float("1e18")])
async def test_r4_expired_or_far_in_the_future(ee: Land, replica: httpx.AsyncClient, lifetime_s: float) -> None:
    assert await ask(replica, ee.cell_key.sign(claim(expiry=time.time() + lifetime_s))) == 403


async def test_r4_replayed(ee: Land, replica: httpx.AsyncClient) -> None:
    token = ee.cell_key.sign(claim())
    assert [await ask(replica, token) for _ in range(3)] == [200, 403, 403]


async def test_r4_for_another_path(ee: Land, replica: httpx.AsyncClient) -> None:
    for path in sorted(ALLOWED - {CHAT}):
        assert await ask(replica, ee.cell_key.sign(claim()), path) == 403
    assert await ask(replica, ee.cell_key.sign(claim(path=COMPLETIONS.value))) == 403


@pytest.mark.parametrize(
    "path",
    ["/v1/models", "/health", "/pause", "/invocations", "/detokenize", "//v1/chat/completions", "/"],
)
async def test_r4_nothing_else_is_there_even_with_a_claim(ee: Land, replica: httpx.AsyncClient, path: str) -> None:
    for method in ("GET", "POST", "PUT"):
        token = ee.cell_key.sign(claim(path=path))
        response = await replica.request(method, path, headers={HEADER: token})
        assert response.status_code == 404


async def test_r4_metrics_are_there_with_a_claim_to_them_once(ee: Land, replica: httpx.AsyncClient) -> None:
    token = ee.cell_key.sign(claim(path=METRICS))
    told = await replica.get(f"{METRICS}?name[]=up", headers={HEADER: token})
    assert told.status_code == 200
    assert "vllm:num_requests_running" in told.text
    assert (await replica.get(METRICS, headers={HEADER: token})).status_code == 404


async def test_r4_metrics_are_not_there_for_anybody_else(ee: Land, kr: Land, replica: httpx.AsyncClient) -> None:
    nowhere = await replica.get("/nowhere")
    for token in (
        "",
        "v1.a.b",
        ee.cell_key.sign(claim()),
        ee.cell_key.sign(claim(path=METRICS, expiry=time.time() - 1)),
        ee.cell_key.sign(claim(path=METRICS, country="kr")),
        kr.cell_key.sign(claim(path=METRICS)),
        kr.cell_key.sign(claim(path=METRICS, country="kr")),
    ):
        refused = await replica.get(METRICS, headers={HEADER: token})
        assert (refused.status_code, refused.text) == (nowhere.status_code, nowhere.text)
    for method in ("POST", "PUT", "HEAD"):
        token = ee.cell_key.sign(claim(path=METRICS))
        assert (await replica.request(method, METRICS, headers={HEADER: token})).status_code == 404


async def test_r4_a_claim_to_the_metrics_generates_nothing(ee: Land, replica: httpx.AsyncClient) -> None:
    assert await ask(replica, ee.cell_key.sign(claim(path=METRICS))) == 403


async def test_r4_metrics_are_told_while_draining(ee: Land, replica: httpx.AsyncClient) -> None:
    server = ee.stands[0].server
    server.draining = True
    try:
        token = ee.cell_key.sign(claim(path=METRICS))
        assert (await replica.get(METRICS, headers={HEADER: token})).status_code == 200
        assert await ask(replica, ee.cell_key.sign(claim())) == 503
    finally:
        server.draining = False


async def test_r4_a_refusal_says_nothing_of_the_claim_that_was_expected(ee: Land, replica: httpx.AsyncClient) -> None:
    told = {(await replica.post(CHAT, headers={HEADER: token})).text for token in ("", "v1.a.b")}
    expired = ee.cell_key.sign(claim(expiry=time.time() - 1))
    told.add((await replica.post(CHAT, headers={HEADER: expired})).text)
    assert len(told) == 1


async def test_r4_a_rejected_claim_is_in_the_country_s_log_with_why_and_nothing_that_it_says(
    ee: Land, kr: Land, replica: httpx.AsyncClient
) -> None:
    before = len(await ee.records(Kind.REFUSAL))
    used = ee.cell_key.sign(claim(organisation="acme"))
    for token in (
        None,
        kr.cell_key.sign(claim()),
        ee.cell_key.sign(claim(country="kr")),
        ee.cell_key.sign(claim(path=COMPLETIONS.value)),
        ee.cell_key.sign(claim(expiry=time.time() - 1)),
        ee.cell_key.sign(claim(expiry=time.time() + 10**6)),
        used,
        used,
    ):
        await ask(replica, token)
    told = (await ee.records(Kind.REFUSAL))[before:]
    known = {"no_claim", "forged_claim", "foreign_claim", "claim_for_another_path", "expired_claim"}
    assert {each["reason"] for each in told if "times" not in each} <= known | {
        "claim_from_the_future",
        "replayed_claim",
    }
    assert {each["rule"] for each in told} == {"r4"}
    assert not any("organisation" in each for each in told)


async def test_r4_what_a_request_cost_is_told_to_the_claim_of_that_request_alone(
    ee: Land, replica: httpx.AsyncClient
) -> None:
    mine = claim()
    assert await ask(replica, ee.cell_key.sign(mine)) == 200

    async def spent(**fields: object) -> httpx.Response:
        token = ee.cell_key.sign(claim(**{"path": SPENT, **fields}))
        return await replica.post(SPENT, headers={HEADER: token})

    told = await spent(request_id=f"{mine.request_id}.1")
    assert told.status_code == 200
    assert set(told.json()) == {"prompt_tokens", "completion_tokens", "cached_tokens"}
    assert (await spent()).status_code == 404
    assert (await spent(request_id=f"{mine.request_id}.2", country="kr")).status_code == 403
    assert (await replica.post(SPENT)).status_code == 403
