"""The abuses that callers may rely on being answered rightly: the body, before its meaning."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from time import perf_counter

import pytest

from serving.http.protocol import ListenerLimits
from serving.types import Endpoint
from tests.gateway.wire import answers, exchange
from tests.hostile.asking import EVERYWHERE, QUICKLY_S, asked, bodiless, post, raw, refused, still_serve
from tests.house import Land, land
from tests.journeys.bodies import ASKED, CHAT

pytestmark = pytest.mark.asyncio(loop_scope="module")


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


async def test_after_all_of_it_the_countries_still_serve(ee: Land, kr: Land) -> None:
    await still_serve(ee, kr)
