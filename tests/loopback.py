"""Real sockets for tests: an ASGI application on loopback, and what comes out of it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[str]:
    """Serve ``app`` in this event loop, and give its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical", timeout_graceful_shutdown=1))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream as it stood on the wire."""

    name: str | None
    data: str

    def json(self) -> dict[str, Any]:
        payload: dict[str, Any] = json.loads(self.data)
        return payload


def events(stream: bytes) -> list[Event]:
    """The events of a whole stream. Nothing may stand outside of one."""
    *whole, rest = stream.decode().split("\n\n")
    assert rest == ""
    return [_event(text) for text in whole if not text.startswith(":")]


def _event(text: str) -> Event:
    head, _, rest = text.rpartition("\n")
    assert rest.startswith("data: ")
    return Event(head.removeprefix("event: ") or None, rest.removeprefix("data: "))


async def streamed(client: httpx.AsyncClient, path: str, body: dict[str, Any], **headers: str) -> bytes:
    """The bytes of a streaming answer to ``body``."""
    response = await client.post(path, json={**body, "stream": True}, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return response.content
