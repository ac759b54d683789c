"""Every refusal is in the log, under the request's own id, with its rule and reason, and no more than is certain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.records.record import Kind
from tests.gateway.wire import answers, exchange
from tests.house import NAMED, Land, land
from tests.journeys.bodies import ASKED, CHAT


async def last(ee: Land) -> dict[str, Any]:
    return (await ee.records(Kind.REFUSAL))[-1]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "rule", "reason"),
    [
        ("POST", CHAT, {"Authorization": ""}, ASKED[CHAT], "authenticate", "no_key"),
        ("POST", CHAT, {"Authorization": "Bearer sk-x"}, ASKED[CHAT], "authenticate", "invalid_api_key"),
        ("POST", CHAT, {"X-Domicile-Country": "kr"}, ASKED[CHAT], "r3", "data_residency_mismatch"),
        ("POST", CHAT, {}, {**ASKED[CHAT], "model": "unheard-of"}, "grant", "model_not_found"),
        ("POST", CHAT, {}, {**ASKED[CHAT], "model": NAMED}, "grant", "model_not_found"),
        ("POST", CHAT, {}, {**ASKED[CHAT], "n": -1}, "validate", "integer_below_min_value"),
        ("POST", CHAT, {}, {**ASKED[CHAT], "max_tokens": 5000}, "validate", "integer_above_max_value"),
        ("POST", CHAT, {"Content-Type": "text/plain"}, ASKED[CHAT], "http", "unsupported_media_type"),
        ("GET", CHAT, {}, None, "http", "method_not_allowed"),
        ("GET", "/nowhere", {}, None, "http", "unknown_path"),
        ("GET", "/v1/models", {"Authorization": ""}, None, "authenticate", "no_key"),
        ("GET", "/v1/receipts/rcpt_1", {}, None, "grant", "receipt_not_found"),
    ],
)
async def test_each_names_its_rule(
    tmp_path: Path, method: str, path: str, headers: dict[str, str], body: object, rule: str, reason: str
) -> None:
    async with land(tmp_path) as ee, ee.client(**{"Authorization": f"Bearer {ee.keys['acme']}", **headers}) as client:
        refused = await client.request(method, path, json=body)
        assert refused.status_code >= 400
        told = await last(ee)
        assert (told["rule"], told["reason"], told["status"]) == (rule, reason, refused.status_code)
        assert told["request"] == refused.headers["x-request-id"]
        assert told["site"] == refused.headers["x-domicile-site"]
        known = {"organisation": "acme", "key": ee.key_ids[ee.keys["acme"]]}
        if method == "POST" and rule != "authenticate":
            assert told.items() >= known.items()
        if rule == "authenticate":
            assert not told.keys() & known.keys()


async def test_what_the_listener_refuses_too(tmp_path: Path) -> None:
    async with land(tmp_path) as ee:
        (answer,) = answers(await exchange(ee.gateway, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"))
        assert answer.status == 400
        told = await last(ee)
        assert (told["rule"], told["reason"]) == ("http", "invalid_host")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_country_that_is_down_and_one_that_is_busy(tmp_path: Path, stream: bool) -> None:
    async with land(tmp_path) as ee, ee.client() as client:
        ee.stands[0].server.draining = True
        await client.post(CHAT, json={**ASKED[CHAT], "stream": stream})
        assert (await last(ee))["rule"] == "overload"
        await ee.stands[0].vanish()
        await client.post(CHAT, json={**ASKED[CHAT], "stream": stream})
        told = await last(ee)
        assert (told["rule"], told["reason"], told["organisation"]) == ("r5", "country_unavailable", "acme")
        assert not await ee.records(Kind.REQUEST)
