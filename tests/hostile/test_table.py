"""The abuses that callers may rely on being answered rightly, row by row, over real sockets.

Rows 7, 8 and 39 have tests of their own, with the steps that answer them.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import struct
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import pytest
from PIL import Image

from serving.http.protocol import ListenerLimits
from serving.types import Endpoint
from tests.gateway.openai.test_abuses import BAD_SCHEMAS
from tests.gateway.wire import Answer, answers, exchange
from tests.house import MODEL, NAMED, Land, cut_after, land, lands
from tests.journeys.bodies import ASKED, CHAT, COMPLETIONS, FORECAST, RESPONSES, ask, look_at_headers, text_of
from tests.loopback import events
from tests.schemas import check

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVERYWHERE = pytest.mark.parametrize("endpoint", list(Endpoint))
IDS = re.compile(rb"req_[0-9a-f]{32}")
QUICKLY_S = 5
"""Far more than it takes, far less than what the abuse would cost."""
PROMPTS = {CHAT: "messages", COMPLETIONS: "prompt", RESPONSES: "input"}


def refused(response: httpx.Response, status: int, code: str | None, param: str | None = None) -> dict[str, Any]:
    """The error of an answer that is one, in OpenAI's shape and with our headers."""
    assert response.status_code == status, response.text
    look_at_headers(response, response.headers["x-domicile-country"])
    check("error", response.json())
    error: dict[str, Any] = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"]
    return error


async def post(
    land: Land, content: object, endpoint: Endpoint = CHAT, organisation: str | None = "acme", **headers: str
) -> httpx.Response:
    """The answer to a body: bytes as they are, anything else as JSON."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    async with land.client(organisation) as client:
        return await client.post(endpoint, content=raw, headers={"content-type": "application/json", **headers})


async def asked(land: Land, endpoint: Endpoint = CHAT, **fields: object) -> httpx.Response:
    return await post(land, {**ASKED[endpoint], **fields}, endpoint)


async def raw(land: Land, head: str, body: bytes = b"") -> Answer:
    """The one answer to bytes on the wire, after which the connection ends."""
    (found,) = answers(await exchange(land.gateway, head.replace("\n", "\r\n").encode("latin-1") + body))
    return found


def bodiless(land: Land, key: str | None, path: str = CHAT, extra: str = "") -> str:
    """The head of a request whose body never comes."""
    authorization = f"Authorization: Bearer {key}\n" if key is not None else ""
    return (
        f"POST {path} HTTP/1.1\nHost: ee.example\n{authorization}Content-Type: application/json\n"
        f"Content-Length: 400\nExpect: 100-continue\n{extra}\n"
    )


async def decided_from_the_head(land: Land, key: str | None, path: str = CHAT, extra: str = "") -> Answer:
    """The answer to headers alone. The client is not invited to send the rest, and the connection ends."""
    received = await exchange(land.gateway, bodiless(land, key, path, extra).replace("\n", "\r\n").encode())
    assert not received.startswith(b"HTTP/1.1 100")
    (found,) = answers(received)
    return found


# Who is asking, and where.


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


# The body, before its meaning.


@EVERYWHERE
@pytest.mark.parametrize("body", [b"", b"{", b'{"model": "fake"', b"{'a': 1}", b'{"a":1,}', b'{"a": 01}', b"{} {}"])
async def test_row_13_invalid_json(ee: Land, endpoint: Endpoint, body: bytes) -> None:
    refused(await post(ee, body, endpoint), 400, "invalid_json")


@EVERYWHERE
@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"x"', b"true"])
async def test_row_14_not_an_object(ee: Land, endpoint: Endpoint, body: bytes) -> None:
    refused(await post(ee, body, endpoint), 400, "invalid_body")


@EVERYWHERE
@pytest.mark.parametrize("body", [b'{"model":"fake","model":"x"}', b'{"model":"fake","mod\\u0065l":"x"}'])
async def test_row_15_duplicate_keys(ee: Land, endpoint: Endpoint, body: bytes) -> None:
    refused(await post(ee, body, endpoint), 400, "duplicate_key", "model")


@EVERYWHERE
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", str(2**70), "1" * 5000])
async def test_row_16_numbers_that_are_none(ee: Land, endpoint: Endpoint, number: str) -> None:
    body = json.dumps(ASKED[endpoint])[:-1] + f', "temperature": {number}}}'
    refused(await post(ee, body.encode(), endpoint), 400, "invalid_number", "temperature")


@EVERYWHERE
async def test_row_17_nesting(ee: Land, endpoint: Endpoint) -> None:
    for body in (b'{"x": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", b'{"x": ' * 10**5 + b"1" + b"}" * 10**5):
        begun = perf_counter()
        refused(await post(ee, body, endpoint), 400, "nesting_too_deep")
        assert perf_counter() - begun < QUICKLY_S


@pytest.mark.parametrize(
    "text", [b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', rb'"\ud800"', rb'"\udc00\ud800"', rb'"\u0000"', b'"\x00"']
)
async def test_row_18_text_that_is_none(ee: Land, text: bytes) -> None:
    body = b'{"model": "fake", "messages": [{"role": "user", "content": ' + text + b"}]}"
    response = await post(ee, body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_text")


@pytest.mark.parametrize("text", ["\u202e\u2066\u200f", "👩\u200d👩\u200d👧", "क्\u200dष", "مي\u200cخواهم"])
async def test_row_18_marks_and_joiners_pass(ee: Land, text: str) -> None:
    response = await asked(ee, messages=[{"role": "user", "content": text}])
    assert response.status_code == 200


async def test_row_19_oversize(ee: Land) -> None:
    limit = ee.country.gateway.max_body_bytes
    head = bodiless(ee, ee.keys["acme"]).replace("400", str(limit + 1))
    found = await raw(ee, head)
    assert (found.status, found.code, found.headers[b"connection"]) == (413, "request_too_large", b"close")


async def test_row_19_endless_chunks(ee: Land) -> None:
    head = (
        f"POST {CHAT} HTTP/1.1\nHost: a\nAuthorization: Bearer {ee.keys['acme']}\nContent-Type: application/json\n"
        "Transfer-Encoding: chunked\n\n"
    )
    chunk = b"80000\r\n" + b" " * 0x80000 + b"\r\n"
    pieces = [head.replace("\n", "\r\n").encode(), *[chunk] * 40]
    (found,) = answers(await exchange(ee.gateway, *pieces, pause_s=0.001))
    assert (found.status, found.code) == (413, "request_too_large")


async def test_row_20_gzip_bomb(ee: Land) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    begun = perf_counter()
    response = await post(ee, bomb, CHAT, **{"Content-Encoding": "gzip"})
    refused(response, 413, "request_too_large")
    assert perf_counter() - begun < QUICKLY_S


async def test_row_20_encodings(ee: Land) -> None:
    for coding in ("br", "deflate", "zstd", "gzip, gzip", "gzip, br", "x"):
        response = await post(ee, ASKED[CHAT], CHAT, **{"Content-Encoding": coding})
        refused(response, 415, "unsupported_content_encoding")
    honest = await post(ee, gzip.compress(json.dumps(ASKED[CHAT]).encode()), CHAT, **{"Content-Encoding": "gzip"})
    assert honest.status_code == 200
    for broken in (b"\x1f\x8b", b"no gzip", gzip.compress(b"{}")[:-3], gzip.compress(b"{}") + b"x"):
        refused(await post(ee, broken, CHAT, **{"Content-Encoding": "gzip"}), 400, "invalid_json")


@pytest.mark.parametrize(
    "headers",
    ["X: " + "a" * 20_000 + "\n", "".join(f"X{number}: a\n" for number in range(150)), "X: y\n" * 150],
)
async def test_row_21_huge_or_many_headers(ee: Land, headers: str) -> None:
    found = await raw(ee, f"GET /v1/models HTTP/1.1\nHost: a\n{headers}\n")
    assert (found.status, found.code) == (431, "request_header_fields_too_large")
    assert found.headers[b"connection"] == b"close"


async def test_row_21_a_head_that_never_ends(ee: Land) -> None:
    pieces = [b"GET /v1/models HTTP/1.1\r\nHost: a\r\n", *[b"X: " + b"a" * 8000 + b"\r\n"] * 40]
    (found,) = answers(await exchange(ee.gateway, *pieces, pause_s=0.001))
    assert found.status == 431


@pytest.mark.parametrize("stop_at", ["GET /v1/mo", "GET /v1/models HTTP/1.1\nHost: a\nX-A", "body"])
async def test_row_22_slowloris(tmp_path: Path, stop_at: str) -> None:
    hurried = ListenerLimits(head_s=0.3, body_idle_s=0.3, body_s=1)
    async with land(tmp_path, limits=hurried) as ee:
        if stop_at == "body":
            stop_at = bodiless(ee, ee.keys["acme"]).replace("Expect: 100-continue\n", "") + '{"model": '
        found = await raw(ee, stop_at)
    assert (found.status, found.headers[b"connection"]) == (408, b"close")
    assert found.code == "request_timeout"
    assert found.headers[b"x-domicile-country"] == b"ee"


SMUGGLED = "GET /smuggled HTTP/1.1\nHost: a\n\n"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Content-Length: 5\nTransfer-Encoding: chunked\n", "0\n\n" + SMUGGLED),
        ("Transfer-Encoding: chunked\nContent-Length: 5\n", "0\n\n" + SMUGGLED),
        ("Transfer-Encoding: gzip, chunked\n", "0\n\n"),
        ("Transfer-Encoding: chunked, identity\n", "0\n\n"),
        ("Transfer-Encoding: xchunked\n", "0\n\n"),
        ("Content-Length: 5\nContent-Length: 6\n", "hello" + SMUGGLED),
        ("Content-Length: -1\n", SMUGGLED),
        ("Content-Length: +5\n", "hello" + SMUGGLED),
        ("Transfer-Encoding: chunked\n", "zz\nhello\n0\n\n"),
        ("Transfer-Encoding: chunked\n", "5\nhelloX\n0\n\n"),
        ("Transfer-Encoding: chunked\n", "-1\n\n0\n\n"),
        ("Content-Length : 5\n", "hello" + SMUGGLED),
    ],
)
async def test_row_23_framing(ee: Land, headers: str, body: str) -> None:
    key = ee.keys["acme"]
    head = f"POST {CHAT} HTTP/1.1\nHost: a\nAuthorization: Bearer {key}\nContent-Type: application/json\n{headers}\n"
    found = await raw(ee, head + body)
    assert (found.status, found.headers[b"connection"]) == (400, b"close")


@EVERYWHERE
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_row_24_wrong_method(ee: Land, endpoint: Endpoint, method: str) -> None:
    async with ee.client() as client:
        response = await client.request(method, endpoint)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        models = await client.request("DELETE" if method == "GET" else method, "/v1/models")
        assert (models.status_code, models.headers["allow"]) == (405, "GET")


@EVERYWHERE
@pytest.mark.parametrize(
    "kind", [None, "text/plain", "multipart/form-data", "application/json; charset=utf-16", "json"]
)
async def test_row_24_wrong_content_type(ee: Land, endpoint: Endpoint, kind: str | None) -> None:
    async with ee.client() as client:
        headers = {} if kind is None else {"content-type": kind}
        response = await client.post(endpoint, content=json.dumps(ASKED[endpoint]), headers=headers)
    refused(response, 415, "unsupported_media_type")


# What the body asks for.


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_row_25_choices(ee: Land, endpoint: Endpoint) -> None:
    refused(await asked(ee, endpoint, n=10**9), 400, "integer_above_max_value", "n")
    refused(await asked(ee, endpoint, n=0), 400, "integer_below_min_value", "n")


async def test_row_26_best_of(ee: Land) -> None:
    refused(await asked(ee, COMPLETIONS, best_of=10**9), 400, "integer_above_max_value", "best_of")
    refused(await asked(ee, COMPLETIONS, best_of=1, n=2), 400, "integer_below_min_value", "best_of")


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        (CHAT, "max_tokens"),
        (CHAT, "max_completion_tokens"),
        (COMPLETIONS, "max_tokens"),
        (RESPONSES, "max_output_tokens"),
    ],
)
async def test_row_27_max_tokens(ee: Land, endpoint: Endpoint, name: str) -> None:
    for value, code in ((0, "below_min"), (-1, "below_min"), (10**12, "above_max"), (4097, "above_max")):
        refused(await asked(ee, endpoint, **{name: value}), 400, f"integer_{code}_value", name)


@EVERYWHERE
@pytest.mark.parametrize("words", [5_000, 1_000_000])
@pytest.mark.parametrize("stream", [False, True])
async def test_row_28_prompt_over_the_context(ee: Land, endpoint: Endpoint, words: int, stream: bool) -> None:
    text = "sea " * words
    prompt = [{"role": "user", "content": text}] if endpoint is CHAT else text
    response = await asked(ee, endpoint, **{PROMPTS[endpoint]: prompt, "stream": stream})
    refused(response, 400, "context_length_exceeded", PROMPTS[endpoint])


async def test_row_29_logprobs(ee: Land) -> None:
    refused(await asked(ee, logprobs=True, top_logprobs=21), 400, "integer_above_max_value", "top_logprobs")
    refused(await asked(ee, RESPONSES, top_logprobs=21), 400, "integer_above_max_value", "top_logprobs")
    refused(await asked(ee, COMPLETIONS, logprobs=21), 400, "integer_above_max_value", "logprobs")
    for endpoint in Endpoint:
        for value in (0, 1, None):
            refused(await asked(ee, endpoint, prompt_logprobs=value), 400, "unknown_parameter", "prompt_logprobs")
    refused(await asked(ee, COMPLETIONS, echo=True, logprobs=1), 400, "unsupported_parameter", "echo")


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "bias", [{str(token): 1 for token in range(5000)}, {"5000": 1}, {"-1": 1}, {"1": 1000}, {"x": 1}, [], "1"]
)
async def test_row_30_logit_bias(ee: Land, endpoint: Endpoint, bias: object) -> None:
    response = await asked(ee, endpoint, logit_bias=bias)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "logit_bias")
    check("error", response.json())


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("stop", [["a"] * 5, "", [""], "x" * 2**20, [], [1]])
async def test_row_31_stop(ee: Land, endpoint: Endpoint, stop: object) -> None:
    response = await asked(ee, endpoint, stop=stop)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "stop")


@EVERYWHERE
async def test_row_32_ranges(ee: Land, endpoint: Endpoint) -> None:
    refused(await asked(ee, endpoint, temperature=3), 400, "decimal_above_max_value", "temperature")
    refused(await asked(ee, endpoint, top_p=-1), 400, "decimal_below_min_value", "top_p")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("regex", "(((a{90}){90}){90}){90}"),
        ("regex", "a{100000000}"),
        ("regex", "(" * 5000 + ")" * 5000),
        ("regex", "(a|aa)+" * 400),
        ("regex", "(?=a)b"),
        ("regex", "(a"),
        ("grammar", 'root ::= "a"{1,99999}'),
        ("grammar", "a" * 100_000),
        ("choice", ["a"] * 5000),
    ],
)
async def test_row_33_pathological_grammar(ee: Land, kind: str, value: object) -> None:
    begun = perf_counter()
    response = await asked(ee, structured_outputs={kind: value})
    assert perf_counter() - begun < QUICKLY_S
    refused(response, 400, "invalid_grammar", f"structured_outputs.{kind}")
    assert (await asked(ee)).status_code == 200


@pytest.mark.parametrize("name", sorted(BAD_SCHEMAS))
async def test_row_34_recursive_or_huge_schema(ee: Land, name: str) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": BAD_SCHEMAS[name]}}
    begun = perf_counter()
    refused(await asked(ee, response_format=wanted), 400, "schema_too_complex", "response_format")
    assert perf_counter() - begun < QUICKLY_S


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "web_search"},
        {"type": "mcp", "server_url": "http://169.254.169.254"},
        {"type": "function", "function": {"name": "a b"}},
        {"type": "function", "function": {"name": "x" * 65}},
        "x",
    ],
)
async def test_row_35_bad_tools(ee: Land, tool: object) -> None:
    refused(await asked(ee, tools=[FORECAST, tool]), 400, "invalid_tool", "tools[1]")


async def test_row_35_bad_pattern_in_a_tool(ee: Land) -> None:
    parameters = {"properties": {"x": {"type": "string", "pattern": "(a{100}){200}"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    refused(await asked(ee, tools=[tool]), 400, "schema_too_complex", "tools[0]")


UNKNOWN = [
    *("chat_template", "chat_template_kwargs", "prompt_embeds", "media_io_kwargs", "mm_processor_kwargs"),
    *("cache_salt", "kv_transfer_params", "vllm_xargs", "priority", "request_id", "session_id", "guided_json"),
    *("documents", "return_token_ids", "add_special_tokens", "truncate_prompt_tokens", "x-nobody-knows"),
]


@EVERYWHERE
@pytest.mark.parametrize("name", UNKNOWN)
async def test_row_36_unknown_names(ee: Land, endpoint: Endpoint, name: str) -> None:
    for value in (None, 1, {"a": "b"}):
        refused(await asked(ee, endpoint, **{name: value}), 400, "unknown_parameter", name)


def shown(url: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/",
        "https://example.com/redirect",
        "file:///etc/passwd",
        "HTTP://localhost",
        "//host/x",
        "data:text/html;base64,PGI+",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:image/png;base64,aGVsbG8=",
        "",
    ],
)
async def test_row_37_images_are_never_fetched(ee: Land, url: str) -> None:
    param = "messages[0].content[0].image_url.url"
    refused(await asked(ee, messages=shown(url)), 400, "invalid_image_url", param)
    part = {"type": "input_image", "image_url": url}
    response = await asked(ee, RESPONSES, input=[{"role": "user", "content": [part]}])
    refused(response, 400, "invalid_image_url", "input[0].content[0].image_url")


async def test_row_38_image_bomb(ee: Land) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    flat = io.BytesIO()
    Image.new("L", (5000, 5000)).save(flat, "png")
    for data in (bomb, flat.getvalue()):
        url = "data:image/png;base64," + base64.b64encode(data).decode()
        begun = perf_counter()
        response = await asked(ee, messages=shown(url))
        refused(response, 400, "image_too_large", "messages[0].content[0].image_url.url")
        assert perf_counter() - begun < QUICKLY_S


# Ours.


@EVERYWHERE
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["down", "draining", "overloaded"])
async def test_row_40_overloaded_or_down(tmp_path: Path, endpoint: Endpoint, stream: bool, how: str) -> None:
    async with lands(tmp_path, "ee", "kr") as (ee, kr):
        if how == "down":
            await ee.stands[0].vanish()
        elif how == "draining":
            ee.report(draining=ee.stands)
        else:
            ee.stands[0].server.draining = True
        response = await asked(ee, endpoint, stream=stream)
        error = refused(response, 503, "server_is_overloaded")
        assert error["type"] == "service_unavailable_error"
        assert 0 < int(response.headers["retry-after"]) <= 120
        assert response.headers["x-should-retry"] == "true"
        assert not kr.engine.claims


@pytest.mark.parametrize("resumable", [True, False])
async def test_row_40_a_replica_dies_mid_stream(tmp_path: Path, resumable: bool) -> None:
    fields = {"stop": "?"} if not resumable else {}
    async with land(tmp_path, replicas=2) as ee, ee.client() as client:
        whole = (await ask(client, CHAT))["choices"][0]["message"]["content"]
        lost = cut_after(ee, 3)
        response = await client.post(CHAT, json={**ASKED[CHAT], "stream": True, **fields})
        *told, last = events(response.content)
        assert len(lost) == 1
        if resumable:
            assert last.data == "[DONE]"
            assert text_of(told) == whole
        else:
            check("error", last.json())
            assert last.json()["error"]["type"] == "service_unavailable_error"
            assert 0 < len(text_of(told)) < len(whole)
            assert whole.startswith(text_of(told))


async def test_after_all_of_it_the_country_still_serves(ee: Land, kr: Land) -> None:
    for place in (ee, kr):
        async with place.client() as client:
            await ask(client, CHAT, place.country.code)
            assert (await client.get("/v1/models")).json()["data"][0]["id"] == MODEL
