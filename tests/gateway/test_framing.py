"""Where one request ends and the next begins: row 23, upgrades, pipelining."""

from __future__ import annotations

import asyncio

import pytest

from serving.errors import Reason
from tests.gateway.wire import (
    CHUNKED,
    CLOSE,
    EASY,
    GET,
    HOST,
    POST,
    SMUGGLED,
    answers,
    assert_refused,
    exchange,
    only_answer,
    serve,
    until,
)


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        POST + b"Content-Length: 1, 2\r\n\r\nx",
        *(POST + b"Content-Length: " + v + b"\r\n\r\nx" for v in (b"", b"x", b"+1", b"-1", b"0x1", b"1 1", b"9" * 30)),
        *(
            POST + b"Transfer-Encoding: " + v + b"\r\n\r\n0\r\n\r\n"
            for v in (b"", b"gzip", b"identity", b"gzip, chunked", b"chunked, chunked", b"xchunked", b"\x0bchunked")
        ),
        POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        POST + b"X: a\r\n b\r\n\r\n",
        b"POST / HTTP/1.1\r\n Host: a\r\n\r\n",
        POST + b": a\r\n\r\n",
        POST + b"X\r\n\r\n",
        POST + b"X: a\rY: b\r\n\r\n",
        POST + b"X: a\nY: b\r\n\r\n",
        POST + b"X: a\x00b\r\n\r\n",
        POST + b"\n",
        POST.replace(b"\r\n", b"\n") + b"\n",
        *(
            CHUNKED + chunks
            for chunks in (
                b"g\r\n",
                b"-1\r\nx\r\n",
                b"0x1\r\nx\r\n",
                b" 1\r\nx\r\n",
                b"1 \r\nx\r\n",
                b"\r\n",
                b"1\nx\n0\n\n",
                b"1\r\nxy\r\n0\r\n\r\n",
                b"1\r\nx\n0\r\n\r\n",
                b"1\rZx\r\n0\r\n\r\n",
                b"1;a\nx\r\n0\r\n\r\n",
                b"fffffffffffffffff\r\nx\r\n",
                b"0\r\nContent-Length: 5\r\n\r\n",
                b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"0\r\n\n",
            )
        ),
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00",
    ],
)
async def test_row_23_malformed_requests_end_the_connection(request_: bytes) -> None:
    async with serve() as (listener, house):
        assert_refused(await only_answer(listener, request_ + SMUGGLED), Reason.MALFORMED_HTTP)
        in_drops = [bytes([byte]) for byte in request_ + SMUGGLED]
        assert_refused(answers(await exchange(listener, *in_drops, pause_s=0))[0], Reason.MALFORMED_HTTP)
        assert (await only_answer(listener, GET + CLOSE)).status == 200
    assert "/smuggled" not in house.paths


async def test_row_23_framing_that_is_valid_passes() -> None:
    async with serve() as (listener, house):
        for request in (
            POST + b"Transfer-Encoding: Chunked\r\n\r\n1;a=b\r\nx\r\n02\r\nyz\r\n0\r\nT: t\r\n\r\n",
            POST + b"Content-Length: 3\r\n\r\nxyz",
        ):
            assert (await only_answer(listener, request)).body == b"3"
    assert house.bodies == [b"xyz", b"xyz"]


async def test_row_23_trailers_do_not_become_headers() -> None:
    async with serve() as (listener, house):
        await exchange(listener, CHUNKED + b"1\r\nx\r\n", b"0\r\nX-Tenant: kr\r\nAuthorization: Bearer x\r\n\r\n")
    assert [name for name, _ in house.scopes[0]["headers"]] == [b"host", b"transfer-encoding"]


@pytest.mark.parametrize("start", [b"0\r\nX: ", b"1;"])
async def test_row_23_endless_trailers_and_extensions_are_cut_off(start: bytes) -> None:
    async with serve() as (listener, _):
        raw = await exchange(listener, CHUNKED, start, *[b"y" * 20_000] * 5, pause_s=0.002)
    assert_refused(answers(raw)[0], Reason.MALFORMED_HTTP)


async def test_row_23_a_malformed_request_waits_for_its_turn() -> None:
    async with serve() as (listener, house):
        request = asyncio.create_task(
            exchange(listener, b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n", b"junk\r\n", pause_s=0.1)
        )
        await asyncio.sleep(0.3)
        house.go.set()
        streamed, refused = answers(await request)
    assert streamed.body == b"firstlast"
    assert_refused(refused, Reason.MALFORMED_HTTP)


async def test_row_23_broken_chunks_under_a_begun_answer_cut_it_short() -> None:
    async with serve() as (listener, house):
        raw = await exchange(listener, CHUNKED.replace(b"/ ", b"/stream "), b"junk\r\n", pause_s=0.1)
        house.go.set()
    assert raw.count(b"HTTP/1.1") == 1
    assert raw.endswith(b"first\r\n")


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c", b"TLS/1.0"])
@pytest.mark.parametrize("cut", [0, 20, -30])
async def test_upgrades_are_ignored_and_their_bodies_are_bodies(upgrade: bytes, cut: int) -> None:
    head = POST + b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nUpgrade: " + upgrade
    request = head + b"\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED
    async with serve() as (listener, house):
        assert (await only_answer(listener, request[:cut], request[cut:])).status == 200
    assert house.bodies == [SMUGGLED]


async def test_many_upgrades_in_one_segment_are_bounded() -> None:
    async with serve() as (listener, _):
        found = answers(await exchange(listener, (GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n") * 2000))
    assert [one.status for one in found][-2:] == [200, 400]
    assert len(found) <= 20


async def test_row_24_other_methods_are_the_applications_to_refuse() -> None:
    async with serve() as (listener, house):
        for method in (b"TRACE", b"OPTIONS", b"DELETE", b"PATCH"):
            await exchange(listener, method + b" / HTTP/1.1\r\nHost: a\r\n" + CLOSE)
    assert [scope["method"] for scope in house.scopes] == ["TRACE", "OPTIONS", "DELETE", "PATCH"]


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serve() as (listener, house):
        requests = [b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (n, n) + b"x" * n for n in range(9)]
        found = answers(await exchange(listener, b"".join(requests)))
    assert [one.body for one in found] == [b"%d" % n for n in range(9)]
    assert house.paths == [f"/{n}" for n in range(9)]


async def test_pipelining_is_bounded() -> None:
    async with serve() as (listener, house):
        found = answers(await exchange(listener, (GET + b"\r\n") * 5000))
    assert len(house.scopes) == EASY.pipelined + 1
    assert [one.status for one in found] == [200] * (EASY.pipelined + 1) + [400]


async def test_nothing_after_close_is_a_request() -> None:
    async with serve() as (listener, house):
        assert (await only_answer(listener, GET + CLOSE + SMUGGLED)).status == 200
        assert (await only_answer(listener, GET.replace(b"1.1", b"1.0") + b"\r\n" + SMUGGLED)).status == 200
    assert "/smuggled" not in house.paths


async def test_the_request_being_answered_learns_that_its_client_left() -> None:
    async with serve() as (listener, house):
        _, writer = await asyncio.open_connection(HOST, listener.port)
        writer.write(b"GET /until-gone HTTP/1.1\r\nHost: a\r\n\r\n" + GET + b"\r\n")
        await until(lambda: len(house.scopes) == 1)
        writer.close()
        await until(lambda: house.gone == ["/until-gone"])
