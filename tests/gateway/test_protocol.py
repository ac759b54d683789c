"""A real listener spoken to by hand: rows 9 to 12, 19, 21 and 22."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing, suppress

import pytest

from serving.errors import Reason
from serving.http.listener import ListenerLimits
from tests.gateway.wire import (
    CLOSE,
    GET,
    HOST,
    POST,
    QUICK,
    SMUGGLED,
    answers,
    assert_refused,
    exchange,
    only_answer,
    serve,
    until,
)


async def test_row_9_forwarded_headers_are_not_believed() -> None:
    async with serve() as (listener, house):
        forged = b"X-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: https\r\nForwarded: for=10.9.9.9\r\n\r\n"
        await exchange(listener, GET + forged)
    assert house.scopes[0]["client"][0] == HOST
    assert house.scopes[0]["scheme"] == "http"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.0\r\n",
        GET + b"Host: ee.example\r\n",
        GET + b"host: kr.example\r\n",
        b"GET http://ee.example/ HTTP/1.1\r\nHost: ee.example\r\n",
        b"GET https://kr.example/ HTTP/1.1\r\nHost: ee.example\r\n",
        b"CONNECT ee.example:443 HTTP/1.1\r\nHost: ee.example\r\n",
        b"CONNECT / HTTP/1.1\r\nHost: ee.example\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: ee.example\r\n",
        *(
            b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n"
            for host in (
                b"",
                b"a b",
                b"user@a",
                b"a:b",
                b"a:",
                b"a:123456",
                b"a:1:2",
                b"a/b",
                b"a?b",
                b"a, b",
                b"[::1",
                b"::1",
                b"\xff",
                b"http://a",
                b"a%00",
                b"<a>",
            )
        ),
    ],
)
async def test_row_10_hosts_and_targets(head: bytes) -> None:
    async with serve() as (listener, house):
        assert_refused(await only_answer(listener, head + b"\r\n"), Reason.INVALID_HOST)
    assert not house.scopes


@pytest.mark.parametrize("host", [b"a", b"A.b-c_d:9233", b"127.0.0.1", b"[::1]", b"[fe80::1]:80", b"a \t"])
async def test_row_10_good_hosts(host: bytes) -> None:
    async with serve() as (listener, _):
        assert (await only_answer(listener, b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n" + CLOSE)).status == 200


async def test_row_11_refusals_have_our_request_id() -> None:
    async with serve() as (listener, _):
        theirs = b"X-Request-Id: req_00000000000000000000000000000000\r\n"
        first = await only_answer(listener, b"GET / HTTP/1.1\r\n" + theirs + b"\r\n")
        second = await only_answer(listener, b"GET / HTTP/1.1\r\n" + theirs + b"\r\n")
    ids = {first.headers[b"x-request-id"], second.headers[b"x-request-id"]}
    assert len(ids) == 2
    assert b"req_" + b"0" * 32 not in ids


async def test_row_12_paths_reach_the_application_as_sent() -> None:
    async with serve() as (listener, house):
        for target in (b"//v1", b"/v1/%2e%2e/pause"):
            await exchange(listener, b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n" + CLOSE)
    assert [scope["raw_path"] for scope in house.scopes] == [b"//v1", b"/v1/%2e%2e/pause"]
    assert house.paths == ["//v1", "/v1/../pause"]


async def test_row_19_a_refusal_before_the_body_reaches_a_client_that_sends_on() -> None:
    async with serve() as (listener, house):
        head = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n"
        found = await only_answer(listener, head, *[b"x" * 400_000] * 9)
        assert (found.status, found.headers[b"connection"]) == (401, b"close")
        await until(lambda: listener.connections == 0)
    assert len(house.scopes) == 1


def send_all_then_read(port: int, sent: bytes) -> bytes:
    with closing(socket.create_connection((HOST, port), 5)) as client:
        client.sendall(sent)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"])
async def test_row_19_a_client_that_sends_everything_before_it_reads_is_not_reset(close: bytes) -> None:
    async with serve() as (listener, _):
        head = b"POST /early HTTP/1.1\r\nHost: a\r\n" + close + b"Content-Length: 8000000\r\n\r\n"
        (found,) = answers(await asyncio.to_thread(send_all_then_read, listener.port, head + bytes(8_000_000)))
    assert found.status == 401


async def test_row_19_an_endless_body_is_not_listened_to_for_ever() -> None:
    limits = ListenerLimits(linger_s=30, linger_bytes=1 << 20)
    async with serve(limits=limits) as (listener, _):
        reader, writer = await asyncio.open_connection(HOST, listener.port)
        with closing(writer):
            writer.write(b"POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            assert (await reader.readuntil(b"no")).startswith(b"HTTP/1.1 401")
            with suppress(ConnectionError):
                for _ in range(1000):
                    writer.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
                    await writer.drain()
                    if listener.connections == 0:
                        break
            await until(lambda: listener.connections == 0)


async def test_row_19_lingering_has_an_end_in_time() -> None:
    async with serve() as (listener, _):
        reader, writer = await asyncio.open_connection(HOST, listener.port)
        with closing(writer):
            writer.write(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n")
            assert await reader.read(-1)
            await until(lambda: listener.connections == 0)


async def test_row_19_what_follows_an_early_answer_is_never_a_request() -> None:
    async with serve() as (listener, house):
        head = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
        assert (await only_answer(listener, head, b"0123456789" + SMUGGLED)).status == 401
    assert house.paths == ["/early"]


async def test_expect_100_continue_invites_only_when_the_body_is_wanted() -> None:
    async with serve() as (listener, _):
        head = b" HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
        wanted = await exchange(listener, b"POST /" + head, b"{}")
        unwanted = await exchange(listener, b"POST /early" + head)
    assert wanted.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
    assert unwanted.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "head",
    [
        GET + b"X: y\r\n" * 100,
        GET + b"X: " + b"y" * 16_384 + b"\r\n",
        GET + b"Y" * 16_384 + b": y\r\n",
        GET + (b"X: " + b"y" * 9000 + b"\r\n") * 8,
        b"GET /" + b"x" * 8192 + b" HTTP/1.1\r\nHost: a\r\n",
        b"GET /?" + b"x" * 8192 + b" HTTP/1.1\r\nHost: a\r\n",
    ],
)
@pytest.mark.parametrize("split", [1, 3000])
async def test_row_21_heads_have_limits(head: bytes, split: int) -> None:
    sent = [head + b"\r\n"] if split == 1 else [head[i : i + split] for i in range(0, len(head), split)] + [b"\r\n"]
    async with serve() as (listener, house):
        assert_refused(await only_answer(listener, *sent), Reason.HEADERS_TOO_LARGE)
    assert not house.scopes


@pytest.mark.parametrize("start", [b"", b"GET /", GET + b"X", GET + b"X: "])
async def test_row_21_an_endless_line_is_cut_off(start: bytes) -> None:
    async with serve() as (listener, _):
        raw = await exchange(listener, start, *[b"y" * 20_000] * 5, pause_s=0.002)
        status = answers(raw)[0].status
    assert status == (431 if start else 400)


async def test_row_21_heads_within_the_limits_pass() -> None:
    async with serve() as (listener, house):
        head = GET.replace(b"/ ", b"/" + b"x" * 8191 + b" ") + b"X: " + b"y" * 16_000 + b"\r\n" + b"Z: z\r\n" * 98
        found = await only_answer(listener, head[:5000], head[5000:] + b"\r\n")
    assert found.status == 200
    assert len(house.scopes[0]["headers"]) == 100


@pytest.mark.parametrize("start", [b"G", GET, GET + b"X: y", GET + b"X: y\r\n"])
async def test_row_22_a_slow_head(start: bytes) -> None:
    async with serve(limits=QUICK) as (listener, house):
        assert_refused(await only_answer(listener, start), Reason.REQUEST_TIMEOUT)
        dripping = await exchange(listener, start, *[b"y"] * 20, pause_s=0.05)
    assert answers(dripping)[0].status == (400 if start == b"G" else 408)
    assert not house.scopes


async def test_row_22_connections_without_a_request_are_closed_in_silence() -> None:
    async with serve(limits=QUICK) as (listener, _):
        assert await exchange(listener) == b""
        assert await exchange(listener, b"\r\n") == b""
        assert len(answers(await exchange(listener, GET + b"\r\n"))) == 1


@pytest.mark.parametrize("framing", [b"Content-Length: 9\r\n\r\nx", b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"])
async def test_row_22_a_body_that_stops(framing: bytes) -> None:
    async with serve(limits=QUICK) as (listener, house):
        assert_refused(await only_answer(listener, POST + framing), Reason.REQUEST_TIMEOUT)
    assert house.gone == ["body"]


async def test_row_22_a_body_that_drips() -> None:
    async with serve(limits=QUICK) as (listener, _):
        raw = await exchange(listener, POST + b"Content-Length: 99\r\n\r\n", *[b"x"] * 20, pause_s=0.05)
    assert_refused(answers(raw)[0], Reason.REQUEST_TIMEOUT)


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
async def test_row_22_a_client_that_we_keep_waiting_is_not_slow(expect: bytes) -> None:
    async with serve(limits=QUICK) as (listener, house):
        head = b"POST /patient HTTP/1.1\r\nHost: a\r\n" + expect + b"Content-Length: 2000000\r\n\r\n"
        reader, writer = await asyncio.open_connection(HOST, listener.port)
        with closing(writer):
            writer.write(head)
            if not expect:
                writer.write(bytes(2_000_000))
            await asyncio.sleep(0.9)
            house.go.set()
            if expect:
                assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                writer.write(bytes(2_000_000))
            (found,) = answers(await asyncio.wait_for(reader.read(-1), 5))
    assert found.status == 200


async def test_row_22_a_slow_answer_is_no_fault_of_the_client() -> None:
    async with serve(limits=QUICK) as (listener, house):
        request = asyncio.create_task(exchange(listener, b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"))
        await asyncio.sleep(0.5)
        house.go.set()
        assert answers(await request)[0].status == 200


async def test_row_22_a_client_that_takes_nothing_of_its_answer_is_let_go() -> None:
    async with serve(limits=QUICK) as (listener, _):
        _, writer = await asyncio.open_connection(HOST, listener.port, limit=1)
        with closing(writer):
            writer.write(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: listener.connections == 1)
            await until(lambda: listener.connections == 0)
