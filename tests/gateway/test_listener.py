"""Starting, stopping, sharing, TLS, and what an application leaves undone."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.types import Receive, Scope, Send

from serving.errors import Reason
from serving.http.listener import Listener, PortTaken
from tests.gateway.wire import (
    GET,
    HOST,
    POST,
    QUICK,
    House,
    answer,
    answers,
    assert_refused,
    exchange,
    only_answer,
    serve,
    until,
)


async def test_it_serves_and_keeps_the_connection() -> None:
    async with serve() as (listener, house):
        first, second = answers(
            await exchange(listener, POST + b"Content-Length: 2\r\n\r\n{}", GET + b"\r\n", pause_s=0.05)
        )
    assert (first.status, first.body, second.status) == (200, b"2", 200)
    assert b"server" not in first.headers
    assert b"date" in first.headers
    assert b"connection" not in first.headers
    assert house.bodies == [b"{}", b""]


async def test_accepted_sockets_do_not_delay_small_writes() -> None:
    async with serve() as (listener, house):
        _, writer = await asyncio.open_connection(HOST, listener.port)
        with closing(writer):
            writer.write(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            await until(lambda: len(house.scopes) == 1)
            (connection,) = listener._server.server_state.connections
            accepted = connection.transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_two_listeners_share_a_port_and_a_third_that_does_not_is_told() -> None:
    async with serve(reuse_port=True) as (listener, house):
        second = Listener(house, host=HOST, port=listener.port, reuse_port=True)
        await second.start()
        await second.stop()
        alone = Listener(house, host=HOST, port=listener.port)
        with pytest.raises(PortTaken, match=rf"{HOST}:{listener.port} is in use"):
            await alone.start()


async def test_a_port_of_a_program_that_does_not_share_is_refused() -> None:
    async with serve() as (listener, house):
        with pytest.raises(PortTaken):
            await Listener(house, host=HOST, port=listener.port, reuse_port=True).start()


async def test_stopping_lets_requests_finish() -> None:
    house = House()
    listener = Listener(house, host=HOST, port=0)
    await listener.start()
    request = asyncio.create_task(exchange(listener, b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"))
    idle = asyncio.create_task(exchange(listener, GET + b"\r\n"))
    await until(lambda: len(house.scopes) == 2)
    stopping = asyncio.create_task(listener.stop(5))
    assert answers(await idle)[0].status == 200
    with pytest.raises(OSError, match=r".*"):
        await asyncio.open_connection(HOST, listener.port)
    house.go.set()
    (last,) = answers(await request)
    assert (last.body, last.headers[b"connection"]) == (b"waited", b"close")
    await asyncio.wait_for(stopping, 2)


async def test_who_asks_on_an_idle_connection_while_it_stops_is_answered_for_the_last_time() -> None:
    house = House()
    listener = Listener(house, host=HOST, port=0)
    await listener.start()
    reader, writer = await asyncio.open_connection(HOST, listener.port)
    writer.write(GET + b"\r\n")
    await reader.readuntil(b"\r\n\r\n")
    stopping = asyncio.create_task(listener.stop(5))
    await asyncio.sleep(0.1)
    writer.write(GET + b"\r\n")
    rest = await asyncio.wait_for(reader.read(), 5)
    assert b"200 OK" in rest
    assert b"connection: close" in rest.lower()
    await asyncio.wait_for(stopping, 5)
    writer.close()


async def test_stopping_ends_when_the_grace_does() -> None:
    house = House()
    listener = Listener(house, host=HOST, port=0)
    await listener.start()
    request = asyncio.create_task(exchange(listener, b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"))
    await until(lambda: len(house.scopes) == 1)
    await asyncio.wait_for(listener.stop(0.1), 2)
    assert not (await request).endswith(b"0\r\n\r\n")
    assert listener.connections == 0


def certificate(folder: Path) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ee.example")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    now = datetime.now(UTC)
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    (folder / "cert").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(folder / "cert"), str(folder / "key")


async def test_tls(tmp_path: Path) -> None:
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    async with serve(limits=QUICK, tls=certificate(tmp_path)) as (listener, house):
        for request in (GET + b"\r\n", POST.replace(b"/ ", b"/early ") + b"Content-Length: 9\r\n\r\n", b"junk\r\n"):
            reader, writer = await asyncio.open_connection(HOST, listener.port, ssl=client)
            with closing(writer):
                writer.write(request)
                (found,) = answers(await asyncio.wait_for(reader.read(-1), 5))
                assert found.status == {b"G": 200, b"P": 401, b"j": 400}[request[:1]]
        with suppress(ConnectionError):
            assert await exchange(listener, b"not a handshake") == b""
        assert await asyncio.wait_for(exchange(listener), 5) == b"", "a handshake has a deadline"
    assert house.scopes[0]["scheme"] == "https"


async def test_the_private_listener_is_plain() -> None:
    async with serve(guarded=False) as (listener, house):
        raw = await exchange(listener, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answers(raw)[0].status == 200
    assert len(house.scopes) == 1


async def test_the_applications_failures_are_told_without_a_word_of_them(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as (listener, _):
        for path in (b"/fail", b"/silent"):
            found = await only_answer(listener, b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            assert_refused(found, Reason.INTERNAL_ERROR)
        raw = await exchange(listener, b"GET /fail-midway HTTP/1.1\r\nHost: a\r\n\r\n")
        assert raw.endswith(b"first\r\n")
    assert "RuntimeError" in caplog.text
    assert "a prompt" not in caplog.text


async def test_the_problem_is_told_by_whom_it_was_given_to() -> None:
    def estonian(reason: Reason, headers: Mapping[bytes, bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        return reason.wire.status, [(b"content-language", headers[b"accept-language"])], reason.key.encode()

    async with serve(limits=QUICK, problem=estonian) as (listener, _):
        speaks = b"Accept-Language: et\r\n"
        for request in (b"GET / HTTP/1.1\r\n" + speaks + b"\r\n", POST + speaks + b"Content-Length: 1\r\n\r\n"):
            found = await only_answer(listener, request)
            assert found.headers[b"content-language"] == b"et"
            assert found.body in (b"invalid_host", b"request_timeout")


async def test_variables_of_one_request_are_not_the_next_ones() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        variable.set("set")
        while (await receive()).get("more_body"):
            pass
        await answer(send, 200, b"")

    async with serve(app) as (listener, _):
        big = POST + b"Content-Length: 400000\r\n\r\n"
        await exchange(listener, big, bytes(400_000), big, bytes(400_000), pause_s=0.1)
    assert seen == ["unset", "unset"]
