"""A closed loop of clients that cost as little as Python allows: ``python -m tests.bench.client``.

Reads questions from standard input, one a line, and answers each with what it measured. It parses HTTP's framing and
nothing else, but does not take a wrong answer for a fast one: status, count of chunks and ``[DONE]`` are checked.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass, field
from statistics import median
from time import perf_counter
from typing import cast

import httptools
import uvloop

DONE = b"data: [DONE]\n\n"
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
        body = json.dumps(
            {
                "model": self.model,
                "messages": [
                    {"role": "system", "content": "You are a helpful assistant."},
                    {"role": "user", "content": CONTENT},
                ],
                "max_tokens": self.chunks,
                "temperature": 0.7,
                "stream": True,
                **metadata,
            }
        )
        head = [f"host: 127.0.0.1:{self.port}", *HEADERS, f"authorization: Bearer {self.key}"]
        lines = ["POST /v1/chat/completions HTTP/1.1", *head, f"content-length: {len(body)}", "", body]
        return "\r\n".join(lines).encode()


@dataclass(slots=True)
class Tally:
    """What came back, over all clients."""

    requests: int = 0
    chunks: int = 0
    pieces: int = 0
    """Reads that the answers' bodies came in: fewer than chunks where somebody on the way joined some."""
    seconds: float = 0.0
    wrong: int = 0
    first_byte_ms: list[float] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One connection, kept alive: the next request goes out when the last answer is whole."""

    def __init__(self, load: Load, tally: Tally, end: float) -> None:
        self._request = load.request()
        self._wanted = load.chunks
        self._tally = tally
        self._end = end
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio.Transport's children.
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._send()

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
        self._last = body

    def on_message_complete(self) -> None:
        tally = self._tally
        chunks = self._chunks - 1
        tally.requests += 1
        tally.chunks += chunks
        if chunks != self._wanted or not self._last.endswith(DONE) or self._parser.get_status_code() != 200:
            tally.wrong += 1
        if perf_counter() < self._end:
            self._send()
        else:
            self.finished.set_result(None)
            self._transport.close()

    def _send(self) -> None:
        self._chunks = 0
        self._last = b""
        self._sent = perf_counter()
        self._transport.write(self._request)


async def drive(load: Load) -> Tally:
    """Run the load to its end: everything that was begun is finished and counted."""
    tally = Tally()
    loop = asyncio.get_running_loop()
    begun = perf_counter()
    clients = []
    for _ in range(load.clients):
        make = lambda: Client(load, tally, begun + load.seconds)  # noqa: E731
        _, client = await loop.create_connection(make, "127.0.0.1", load.port)
        clients.append(client)
    async with asyncio.timeout(load.seconds + 30):
        await asyncio.gather(*(client.finished for client in clients))
    tally.seconds = perf_counter() - begun
    return tally


def main() -> None:
    print("{}", flush=True)
    for line in sys.stdin:
        tally = uvloop.run(drive(Load(**json.loads(line))))
        first_byte = median(tally.first_byte_ms) if tally.first_byte_ms else 0.0
        print(json.dumps({**asdict(tally), "first_byte_ms": first_byte}), flush=True)


if __name__ == "__main__":
    main()
