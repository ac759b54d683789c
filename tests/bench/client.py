"""A closed loop of clients that cost as little as Python allows: ``python -m tests.bench.client``.

Reads questions from standard input, one a line, and answers each with what it measured. It parses HTTP's framing and
nothing else, but does not take a wrong answer for a fast one: status, count of chunks and ``[DONE]`` are checked.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from time import perf_counter
from typing import cast

import httptools
import uvloop

DONE = b"data: [DONE]\n\n"
GRACE_S = 30.0
PATH = "/v1/chat/completions"
CONTENT = "What is the capital of Estonia, and since when? Answer in one sentence, please."
# Those that OpenAI's Python client sends.
HEADERS = (
    "accept: application/json",
    "accept-encoding: gzip, deflate",
    "connection: keep-alive",
    "content-type: application/json",
    "user-agent: AsyncOpenAI/Python 3.1.0",
    "x-stainless-arch: x64",
    "x-stainless-async: async:asyncio",
    "x-stainless-lang: python",
    "x-stainless-os: Linux",
    "x-stainless-package-version: 3.1.0",
    "x-stainless-read-timeout: 600",
    "x-stainless-retry-count: 0",
    "x-stainless-runtime: CPython",
    "x-stainless-runtime-version: 3.11.7",
)


@dataclass(frozen=True, slots=True)
class Load:
    """What to drive, and how."""

    port: int
    key: str
    model: str
    clients: int
    chunks: int
    seconds: float
    gap_ms: int = 0

    def request(self) -> bytes:
        metadata = {"metadata": {"gap_ms": str(self.gap_ms)}} if self.gap_ms else {}
        system = {"role": "system", "content": "You are a helpful assistant."}
        messages = [system, {"role": "user", "content": CONTENT}]
        fields = {"model": self.model, "messages": messages, "max_tokens": self.chunks, "temperature": 0.7}
        return post({**fields, "stream": True, **metadata}, f"authorization: Bearer {self.key}")


@dataclass(slots=True)
class Tally:
    """What came back, over all clients."""

    requests: int = 0
    chunks: int = 0
    pieces: int = 0
    """Reads that the answers came in: fewer than chunks where somebody on the way joined some."""
    seconds: float = 0.0
    wrong: int = 0
    first_byte_ms: list[float] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One connection, kept alive: the next request goes out when the last answer is whole."""

    def __init__(self, request: Callable[[], bytes | None], tally: Tally, chunks: int | None) -> None:
        """
        Args:
            request: gives the next request, or ``None`` when there has been enough.
            chunks: how many an answer has, where that is known.
        """
        self._request = request
        self._wanted = chunks
        self._tally = tally
        self._parser = httptools.HttpResponseParser(self)
        self._chunks = 0
        self._last = b""
        self._sent = 0.0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in all but their base class.
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._tally.pieces += 1
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.finished.done():
            self._tally.wrong += 1
            self.finished.set_result(None)

    def on_body(self, body: bytes) -> None:
        if not self._chunks:
            self._tally.first_byte_ms.append((perf_counter() - self._sent) * 1000)
        self._chunks += body.count(b"\n\n")
        self._last = (self._last + body)[-len(DONE) :]

    def on_message_complete(self) -> None:
        tally = self._tally
        chunks = self._chunks - 1
        tally.requests += 1
        tally.chunks += chunks
        if self._parser.get_status_code() != 200 or self._last != DONE or self._wanted not in (None, chunks):
            tally.wrong += 1
        self._next()

    def _next(self) -> None:
        request = self._request()
        if request is None:
            self.finished.set_result(None)
            self._transport.close()
            return
        self._chunks = 0
        self._last = b""
        self._sent = perf_counter()
        self._transport.write(request)


def post(fields: dict[str, object], *more: str) -> bytes:
    """A request for a chat completion."""
    body = json.dumps(fields)
    lines = [f"POST {PATH} HTTP/1.1", "host: 127.0.0.1", *HEADERS, *more, f"content-length: {len(body)}", "", body]
    return "\r\n".join(lines).encode()


async def drive(
    port: int, clients: int, request: Callable[[], bytes | None], limit_s: float, chunks: int | None = None
) -> Tally:
    """Let so many clients ask until there has been enough: all that was begun is finished and counted."""
    tally = Tally()
    loop = asyncio.get_running_loop()
    begun = perf_counter()
    async with asyncio.timeout(limit_s):
        asking = []
        for _ in range(clients):
            _, client = await loop.create_connection(lambda: Client(request, tally, chunks), "127.0.0.1", port)
            asking.append(client.finished)
        await asyncio.gather(*asking)
    tally.seconds = perf_counter() - begun
    return tally


async def _for_a_time(load: Load) -> Tally:
    same = load.request()
    end = perf_counter() + load.seconds

    def request() -> bytes | None:
        return same if perf_counter() < end else None

    return await drive(load.port, load.clients, request, load.seconds + GRACE_S, load.chunks)


def main() -> None:
    print("{}", flush=True)
    for line in sys.stdin:
        tally = uvloop.run(_for_a_time(Load(**json.loads(line))))
        first_byte = median(tally.first_byte_ms) if tally.first_byte_ms else 0.0
        print(json.dumps({**asdict(tally), "first_byte_ms": first_byte}), flush=True)


if __name__ == "__main__":
    main()
