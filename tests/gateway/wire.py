"""HTTP by hand: an application that does as it is told, a listener for it, and a client that parses strictly."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import Reason
from serving.http.listener import Listener, ListenerLimits

HOST = "127.0.0.1"
EASY = ListenerLimits(keep_alive_s=0.3, linger_s=0.2)
"""Closes idle connections soon, which is how a client knows that it has read everything; otherwise as shipped."""
QUICK = ListenerLimits(head_s=0.2, keep_alive_s=0.2, body_idle_s=0.2, body_s=0.6, stall_s=0.6, linger_s=0.2)
GET = b"GET / HTTP/1.1\r\nHost: ee.example\r\n"
POST = b"POST / HTTP/1.1\r\nHost: ee.example\r\n"
CLOSE = b"Connection: close\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: ee.example\r\n\r\n"


@dataclass
class House:
    """An application that remembers what it was asked and does as the path says."""

    scopes: list[Scope] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def paths(self) -> list[str]:
        return [scope["path"] for scope in self.scopes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        match scope["path"]:
            case "/early":
                await answer(send, 401, b"no")
            case "/wait":
                await self.go.wait()
                await answer(send, 200, b"waited")
            case "/patient":
                await self.go.wait()
                await self.read(receive)
                await answer(send, 200, b"read")
            case "/stream":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"first", "more_body": True})
                await self.go.wait()
                await send({"type": "http.response.body", "body": b"last"})
            case "/until-gone":
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.gone.append(scope["path"])
            case "/flood":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                while not self.go.is_set():
                    await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
                    await asyncio.sleep(0.001)
            case "/fail":
                raise RuntimeError("a prompt")
            case "/fail-midway":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"first", "more_body": True})
                raise RuntimeError("a prompt")
            case "/silent":
                return
            case _:
                if await self.read(receive):
                    await answer(send, 200, b"%d" % len(self.bodies[-1]))

    async def read(self, receive: Receive) -> bool:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.append("body")
                return False
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        return True


async def answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body)), (b"x-app", b"1")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def code(self) -> str | None:
        error = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        code: str | None = error["code"]
        return code


def answers(raw: bytes) -> list[Answer]:
    """Every whole answer in ``raw``, which must hold nothing else."""
    found = []
    while raw:
        head, blank, raw = raw.partition(b"\r\n\r\n")
        assert blank, head
        line, *lines = head.split(b"\r\n")
        status = int(re.fullmatch(rb"HTTP/1\.1 (\d{3}) [A-Za-z ]*", line).group(1))  # type: ignore[union-attr]
        if status == 100:
            continue
        headers = {}
        for name, _, value in (line.partition(b": ") for line in lines):
            assert name not in headers
            headers[name] = value
        body = b""
        if b"transfer-encoding" in headers:
            size = None
            while size != 0:
                digits, _, raw = raw.partition(b"\r\n")
                size = int(digits, 16)
                assert raw[size : size + 2] == b"\r\n", "cut short"
                body, raw = body + raw[:size], raw[size + 2 :]
        else:
            size = int(headers[b"content-length"])
            assert len(raw) >= size
            body, raw = raw[:size], raw[size:]
        found.append(Answer(status, headers, body))
    return found


@asynccontextmanager
async def serve(
    app: ASGIApp | None = None, *, limits: ListenerLimits = EASY, **options: object
) -> AsyncIterator[tuple[Listener, House]]:
    house = House()
    listener = Listener(app or house, host=HOST, port=0, limits=limits, **options)  # type: ignore[arg-type]
    await listener.start()
    try:
        yield listener, house
    finally:
        house.go.set()
        await listener.stop(1)


async def exchange(listener: Listener, *pieces: bytes, pause_s: float = 0.01) -> bytes:
    """Send ``pieces`` one by one, then read until the listener closes."""
    reader, writer = await asyncio.open_connection(HOST, listener.port)
    received = bytearray()

    async def take() -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                received.extend(data)

    taking = asyncio.create_task(take())
    with closing(writer):
        for piece in pieces:
            if taking.done():
                break
            writer.write(piece)
            with suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(pause_s)
        await asyncio.wait_for(taking, 5)
    return bytes(received)


async def only_answer(listener: Listener, *pieces: bytes) -> Answer:
    (one,) = answers(await exchange(listener, *pieces))
    return one


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the listener has no event for what is waited for
            await asyncio.sleep(0.01)


def assert_refused(found: Answer, reason: Reason) -> None:
    assert found.status == reason.wire.status
    assert found.code == reason.wire.code
    assert found.headers[b"connection"] == b"close"
    assert re.fullmatch(rb"req_[0-9a-f]{32}", found.headers[b"x-request-id"])
    assert found.headers[b"content-type"] == b"application/json"


def talk(port: int, *pieces: bytes) -> bytes:
    with closing(socket.create_connection((HOST, port), 5)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):
            for piece in pieces:
                client.sendall(piece)
        received = b""
        while data := client.recv(1 << 16):
            received += data
        return received
