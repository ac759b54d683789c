"""The abuses that callers may rely on being answered rightly, over real sockets: who is asking, and where.

Rows 7, 8 and 39 have tests of their own, with the steps that answer them.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from serving.types import Endpoint
from tests.gateway.wire import exchange
from tests.hostile.asking import (
    EVERYWHERE,
    IDS,
    asked,
    bodiless,
    decided_from_the_head,
    post,
    raw,
    refused,
    still_serve,
)
from tests.house import NAMED, Land
from tests.journeys.bodies import ASKED, CHAT, ask

pytestmark = pytest.mark.asyncio(loop_scope="module")


@EVERYWHERE
@pytest.mark.parametrize("authorization", [None, "", "Basic YTpi", "Bearer", "Token sk-ee-x"])
async def test_row_01_no_key(ee: Land, endpoint: Endpoint, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = await post(ee, ASKED[endpoint], endpoint, None, **headers)
    refused(response, 401, None)
    assert response.headers["www-authenticate"] == "Bearer"
    async with ee.client(None, **headers) as client:
        refused(await client.get("/v1/models"), 401, None)


def unlike(key: str) -> dict[str, str]:
    """Keys that are none, more and less like one."""
    *head, secret, check_ = key.split("-")
    return {
        "another secret": "-".join([*head, secret[::-1], check_]),
        "another check": "-".join([*head, secret, check_[::-1]]),
        "of OpenAI": "sk-proj-" + "a" * 48,
        "with a space": key[:20] + " " + key[20:],
        "twice": f"{key},{key}",
        "in other letters": "sk-ee-\xe4\xf6",
        "long": "x" * 8000,
    }


@pytest.mark.parametrize("kind", sorted(unlike("sk-ee-a-b-c")))
async def test_row_02_unknown_key(ee: Land, kind: str) -> None:
    key = unlike(ee.keys["acme"])[kind]
    async with ee.client(None) as client:
        headers = {b"Authorization": b"Bearer " + key.encode("latin-1")}
        refused(await client.get("/v1/models", headers=headers), 401, "invalid_api_key")
        response = await client.post(CHAT, json=ASKED[CHAT], headers=headers)
    refused(response, 401, "invalid_api_key")


async def test_row_02_two_keys_are_none(ee: Land) -> None:
    key = ee.keys["acme"]
    found = await raw(
        ee,
        f"GET /v1/models HTTP/1.1\nHost: a\nAuthorization: Bearer sk-x\nAuthorization: Bearer {key}\n"
        "Connection: close\n\n",
    )
    assert (found.status, found.code) == (401, "invalid_api_key")


async def test_row_03_revoked_or_expired_is_identical_to_unknown(ee: Land) -> None:
    revoked, gone = ee.add_key("acme"), ee.add_key("acme", expires=datetime.now(UTC) - timedelta(seconds=1))
    known = ee.add_key("acme")
    async with ee.client(None, Authorization=f"Bearer {revoked}") as client:
        await ask(client, CHAT)
    ee.revoke(revoked)
    unknown = known[:12] + known[12:24][::-1] + known[24:]
    received = set()
    for key in (revoked, gone, unlike(known)["another secret"], unlike(known)["another check"], unknown):
        wire = await exchange(ee.gateway, bodiless(ee, key).replace("\n", "\r\n").encode())
        assert b"invalid_api_key" in wire
        received.add(IDS.sub(b"ID", re.sub(rb"date: [^\r]*", b"date", wire)))
    assert len(received) == 1


async def test_row_03_is_decided_before_the_body_is_read(ee: Land) -> None:
    revoked = ee.add_key("umbra")
    ee.revoke(revoked)
    for key in (revoked, "sk-nobody", None):
        found = await decided_from_the_head(ee, key)
        assert (found.status, found.headers[b"connection"]) == (401, b"close")


@EVERYWHERE
async def test_row_04_key_on_another_country_s_address(ee: Land, kr: Land, endpoint: Endpoint) -> None:
    found = await decided_from_the_head(kr, ee.keys["acme"], endpoint)
    assert (found.status, found.code) == (401, "incorrect_hostname")
    assert f"{ee.url}/v1" in json.loads(found.body)["error"]["message"]
    assert found.headers[b"x-domicile-country"] == b"kr"
    assert not kr.engine.claims


@EVERYWHERE
@pytest.mark.parametrize("header", ["X-Domicile-Country: kr", "OpenAI-Organization: umbra", "x-domicile-country:\t"])
async def test_row_05_header_names_another_tenant(ee: Land, endpoint: Endpoint, header: str) -> None:
    found = await decided_from_the_head(ee, ee.keys["acme"], endpoint, f"{header}\n")
    assert (found.status, found.code) == (403, "data_residency_mismatch")


async def test_row_05_a_second_header_hides_nothing(ee: Land) -> None:
    extra = "X-Domicile-Country: kr\nX-Domicile-Country: ee\n"
    assert (await decided_from_the_head(ee, ee.keys["acme"], CHAT, extra)).status == 403


@EVERYWHERE
@pytest.mark.parametrize("fields", [{"country": "kr"}, {"tenant": "kr"}, {"metadata": {"country": "kr"}}])
async def test_row_05_body_names_another_tenant(ee: Land, endpoint: Endpoint, fields: dict[str, Any]) -> None:
    response = await asked(ee, endpoint, **fields)
    name = next(iter(fields))
    refused(response, 403, "data_residency_mismatch", "metadata.country" if name == "metadata" else name)


async def test_row_05_ones_own_name_is_welcome(ee: Land) -> None:
    headers = {"X-Domicile-Country": "EE", "OpenAI-Organization": "acme"}
    assert (await post(ee, ASKED[CHAT], CHAT, **headers)).status_code == 200


@EVERYWHERE
@pytest.mark.parametrize("model", ["gpt-4", NAMED, "FAKE", "fake/../fake", "model\u202e"])
async def test_row_06_model_unknown_or_not_granted(ee: Land, endpoint: Endpoint, model: str) -> None:
    refused(await asked(ee, endpoint, model=model), 404, "model_not_found", "model")


async def test_row_06_both_look_alike(ee: Land) -> None:
    told = [
        (await asked(ee, model=model)).json()["error"]["message"].replace(model, "") for model in (NAMED, "no-such")
    ]
    assert told[0] == told[1]


async def test_row_06_no_model(ee: Land) -> None:
    for endpoint in Endpoint:
        body = {name: value for name, value in ASKED[endpoint].items() if name != "model"}
        refused(await post(ee, body, endpoint), 400, "missing_required_parameter", "model")


FORGED = {
    "X-Forwarded-For": "10.0.0.1",
    "Forwarded": "for=10.0.0.1;host=kr.example",
    "X-Real-IP": "10.0.0.1",
    "X-Tenant": "kr",
    "X-Domicile-Claim": "v1.eyJ9.AAAA",
    "X-Forwarded-Host": "kr.example",
    "X-Original-URL": "/pause",
    "X-HTTP-Method-Override": "DELETE",
    "Session-Id": "somebody-else",
}


async def test_row_09_forged_headers_change_nothing(ee: Land) -> None:
    plain = (await asked(ee, seed=4)).json()["choices"]
    before = len(ee.engine.claims)
    response = await post(ee, {**ASKED[CHAT], "seed": 4}, CHAT, **FORGED)
    assert response.json()["choices"] == plain
    (claim,) = ee.engine.claims[before:]
    assert claim.organisation == "acme"
    assert claim.request_id.startswith(response.headers["x-request-id"])


async def test_row_09_and_reach_no_replica(ee: Land, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    inner = ee.engine.app

    async def spy(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(name for name, _ in scope["headers"])
        await inner(scope, receive, send)

    monkeypatch.setattr(ee.engine, "_app", spy)
    await post(ee, ASKED[CHAT], CHAT, **FORGED, Cookie="a=b", Traceparent="00-1-1-01")
    assert set(seen) == {b"content-type", b"content-length", b"x-request-id"}


@pytest.mark.parametrize(
    "head",
    [
        "GET /v1/models HTTP/1.1\n\n",
        "GET /v1/models HTTP/1.1\nHost: a\nHost: b\n\n",
        "GET /v1/models HTTP/1.1\nHost: a\nHost: a\n\n",
        "GET /v1/models HTTP/1.1\nHost: a/b\n\n",
        "GET /v1/models HTTP/1.1\nHost: a b\n\n",
        "GET /v1/models HTTP/1.1\nHost: a@b\n\n",
        "GET http://kr.example/v1/models HTTP/1.1\nHost: ee.example\n\n",
        "GET *  HTTP/1.1\nHost: a\n\n",
        "OPTIONS * HTTP/1.1\nHost: a\n\n",
        "CONNECT kr.example:443 HTTP/1.1\nHost: kr.example:443\n\n",
    ],
)
async def test_row_10_bad_host_or_absolute_uri(ee: Land, head: str) -> None:
    found = await raw(ee, head)
    assert (found.status, found.headers[b"connection"]) == (400, b"close")
    assert found.code in ("invalid_host", "malformed_request")


@pytest.mark.parametrize(
    "mine", ["mine-1", "a" * 4000, "req_" + "0" * 32, "../../etc", "x', '1'='1", "%0d%0aSet-Cookie:a=b"]
)
async def test_row_11_hostile_request_id_is_replaced_and_never_forwarded(ee: Land, mine: str) -> None:
    before = len(ee.engine.claims)
    response = await post(ee, ASKED[CHAT], CHAT, **{"X-Request-Id": mine, "X-Client-Request-Id": mine})
    given = response.headers["x-request-id"]
    assert IDS.fullmatch(given.encode())
    assert given != mine
    assert response.json()["id"] == f"chatcmpl-{given}"
    assert all(mine not in claim.request_id for claim in ee.engine.claims[before:])
    assert mine not in response.text


@pytest.mark.parametrize(
    "path",
    [
        *("/invocations", "/pause", "/resume", "/update_weights", "/tokenize", "/detokenize", "/score", "/metrics"),
        *("/load", "/version", "/ping", "/sleep", "/wake_up", "/collective_rpc", "/v1/audio/transcriptions"),
        *("/docs", "/redoc", "/openapi.json", "/v1", "/", "/v1/models/", "/v1/chat/completions/", "/V1/models"),
        *("//v1/models", "/v1//models", "//v1/chat/completions", "/./v1/models", "/v1/../v1/models"),
        *("/v1/%2e%2e/invocations", "/%2e%2e/v1/models", "/v1/chat%2fcompletions", "/v1/%63hat/completions"),
        *("/v1/models%00", "/v1/chat/completions%0a", "/v1/chat/completions;a=b", "/v1/models%2f..%2f..%2fpause"),
    ],
)
async def test_row_12_other_paths_are_not_there(ee: Land, path: str) -> None:
    key = ee.keys["acme"]
    for method in ("GET", "POST"):
        found = await raw(
            ee,
            f"{method} {path} HTTP/1.1\nHost: a\nAuthorization: Bearer {key}\nContent-Type: application/json\n"
            "Content-Length: 2\nConnection: close\n\n",
            b"{}",
        )
        assert (found.status, found.code) == (404, "unknown_url")


async def test_after_all_of_it_the_countries_still_serve(ee: Land, kr: Land) -> None:
    await still_serve(ee, kr)
