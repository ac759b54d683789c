"""A stand-in for an LLM endpoint: right answers at a steady pace, at next to no cost.

Run as ``python -m loadtests.stub``; it prints one line of JSON with its port, and serves until it is ended. Keys are
not looked at. It is what the load generator's own ceiling is measured against, so it must be the faster of the two:
chunks are made once, and one clock serves all streams.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Protocol, cast

import httptools
import orjson
import uvloop

from loadtests.client import phrases

TICK_S = 0.001
_MODELS = b'{"object":"list","data":[{"id":"stub","object":"model","created":1767225600,"owned_by":"stub"}]}'


@dataclass(frozen=True, slots=True)
class Manner:
    """How the stub answers."""

    first_token_s: float = 0.05
    inter_token_s: float = 0.05
    jitter: float = 0.0
    """Share of each wait by which it may be shorter or longer."""
    jitter_seed: int = 0
    tokens_per_event: int = 1
    country: str = ""
    html: bool = False
    refuse: str = ""
    """An error code with which every request is refused, at 503."""
    lose_after: int = 0
    """Tokens after which every stream's connection is cut; 0 for never."""
    stall_at_s: float = 0.0
    stall_s: float = 0.0
    """From the first request on: after so long, nobody hears anything for so long."""


class Due(Protocol):
    def go_on(self, now: float) -> None: ...


class Clock:
    """One timer for all streams: those that are due in the same millisecond are served together."""

    def __init__(self, loop: asyncio.AbstractEventLoop, manner: Manner) -> None:
        self._loop = loop
        self._manner = manner
        self._slots: defaultdict[int, list[Due]] = defaultdict(list)
        self._begun: float | None = None
        self._next = 0
        self._running = False

    def at(self, when: float, one: Due) -> None:
        """Have ``one`` continue at ``when``, or after the stall in which that falls."""
        now = time.monotonic()
        self._begun = self._begun or now
        stall = self._begun + self._manner.stall_at_s
        if self._manner.stall_s and stall <= when < stall + self._manner.stall_s:
            when = stall + self._manner.stall_s
        if not self._running:
            self._running = True
            self._next = int(now / TICK_S)
            self._loop.call_later(TICK_S, self._tick)
        self._slots[max(int(when / TICK_S), self._next)].append(one)

    def _tick(self) -> None:
        now = time.monotonic()
        until = int(now / TICK_S)
        while self._next <= until:
            due = self._slots.pop(self._next, ())
            self._next += 1
            for one in due:
                one.go_on(now)
        self._running = bool(self._slots)
        if self._running:
            self._loop.call_later(TICK_S, self._tick)


class Stream:
    """One answer under way."""

    __slots__ = ("_begin", "_clock", "_due", "_left", "_manner", "_rng", "_said", "_tail", "_transport", "_words")

    def __init__(self, house: House, transport: asyncio.Transport, dialect: str, fields: dict[str, Any]) -> None:
        self._manner = house.manner
        self._clock = house.clock
        self._transport = transport
        self._left = phrases.asked(fields)
        self._said = 0
        self._words = house.chunks.words[dialect]
        self._begin = house.chunks.stream + house.chunks.begins[dialect]
        self._tail = phrases.tail(dialect, fields, self._left)
        self._rng = random.Random(house.next_seed()) if self._manner.jitter else None
        self._due = time.monotonic()

    def wait(self, seconds: float) -> None:
        if self._rng:
            seconds *= 1 + self._manner.jitter * self._rng.uniform(-1, 1)
        self._due += seconds
        self._clock.at(self._due, self)

    def go_on(self, now: float) -> None:
        """Say the next tokens, and the end with the last ones."""
        if self._transport.is_closing():
            return
        count = min(self._manner.tokens_per_event, self._left)
        self._left -= count
        self._said += count
        data, self._begin = self._begin + self._words[count], b""
        if not self._left:
            self._transport.write(data + self._tail)
            return
        self._transport.write(data)
        if self._manner.lose_after and self._said >= self._manner.lose_after:
            self._transport.close()
            return
        # Who was held up goes on at the old pace from there, without a burst.
        self._due = max(self._due, now - TICK_S)
        self.wait(self._manner.inter_token_s * count)


class Body:
    """A whole body that is due."""

    __slots__ = ("_data", "_transport")

    def __init__(self, transport: asyncio.Transport, data: bytes) -> None:
        self._transport = transport
        self._data = data

    def go_on(self, now: float) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._data)


class House:
    """What all connections share."""

    def __init__(self, loop: asyncio.AbstractEventLoop, manner: Manner) -> None:
        self.manner = manner
        self.clock = Clock(loop, manner)
        self.chunks = phrases.Chunks(manner.country, manner.tokens_per_event)
        self._seed = manner.jitter_seed

    def next_seed(self) -> int:
        self._seed += 1
        return self._seed


class Connection(asyncio.Protocol):
    """One client. Requests on it come one after another."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        path, body = self._url.decode(), bytes(self._body)
        self._url, self._body = b"", bytearray()
        self._answer(path, body)

    def _answer(self, path: str, body: bytes) -> None:
        manner, chunks = self._house.manner, self._house.chunks
        dialect = phrases.DIALECTS.get(path)
        if manner.html:
            self._transport.write(chunks.whole("200 OK", phrases.HTML, "text/html"))
        elif path == "/v1/models":
            self._transport.write(chunks.whole("200 OK", _MODELS))
        elif dialect is None:
            self._transport.write(chunks.whole("404 Not Found", phrases.error("unknown_url")))
        elif manner.refuse:
            self._transport.write(chunks.whole("503 Service Unavailable", phrases.error(manner.refuse)))
        else:
            fields = orjson.loads(body)
            if fields.get("stream"):
                Stream(self._house, self._transport, dialect, fields).wait(manner.first_token_s)
                return
            tokens = phrases.asked(fields)
            took = manner.first_token_s + manner.inter_token_s * (tokens - 1)
            data = chunks.whole("200 OK", orjson.dumps(phrases.whole(dialect, fields, tokens)))
            self._house.clock.at(time.monotonic() + took, Body(self._transport, data))


async def serve(manner: Manner, port: int) -> None:
    """Serve on loopback until SIGTERM or SIGINT. Says where on standard output."""
    loop = asyncio.get_running_loop()
    house = House(loop, manner)
    server = await loop.create_server(lambda: Connection(house), "127.0.0.1", port, backlog=2048)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.stub", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 lets the kernel choose")
    parser.add_argument("--first-token-ms", type=float, default=50)
    parser.add_argument("--inter-token-ms", type=float, default=50)
    parser.add_argument("--jitter", type=float, default=0, help="share of every wait by which it varies")
    parser.add_argument("--jitter-seed", type=int, default=0)
    parser.add_argument("--tokens-per-event", type=int, default=1)
    parser.add_argument("--country", default="", help="what x-domicile-country says")
    parser.add_argument("--html", action="store_true", help="answer everything with a web page")
    parser.add_argument("--refuse", default="", help="refuse everything with this code, at 503")
    parser.add_argument("--lose-after", type=int, default=0, help="cut every stream after so many tokens")
    parser.add_argument("--stall", default="0:0", help="BEGIN:SECONDS of silence, counted from the first request")
    told = parser.parse_args()
    begin, _, length = told.stall.partition(":")
    manner = Manner(
        first_token_s=told.first_token_ms / 1000,
        inter_token_s=told.inter_token_ms / 1000,
        jitter=told.jitter,
        jitter_seed=told.jitter_seed,
        tokens_per_event=told.tokens_per_event,
        country=told.country,
        html=told.html,
        refuse=told.refuse,
        lose_after=told.lose_after,
        stall_at_s=float(begin),
        stall_s=float(length or 0),
    )
    uvloop.run(serve(manner, told.port))


if __name__ == "__main__":
    main()
