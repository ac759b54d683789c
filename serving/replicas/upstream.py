"""The way from the gateway to a replica's private listener: HTTP/1.1 over pooled connections.

A streamed answer costs one callback and one wake-up for each packet, however many events it holds, and no
event is parsed. The parser is llhttp (the ``httptools`` package), the loop is whatever loop runs; what is written here
is only the pooling and the hand-over, because general HTTP clients cost several times the budget of a
streamed chunk (docs/decisions/0006).
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import httptools

from serving.records.telemetry.faults import LATE, LOST, fault_of
from serving.types import Address

CONNECT_TIMEOUT_S = 2.0
HIGH_WATER = 256 * 1024
"""Bytes of an answer that may wait for the client before the replica is made to wait."""
_IDLE_CONNECTIONS = 256
_KEEP_ALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}
"""A node that vanishes closes nothing; the kernel notices in eleven seconds. Not every platform has all three."""


class Unreachable(Exception):
    """Nobody answers there. Nothing was asked, so another may be."""

    fault = LOST


class Broken(Exception):
    """The connection was lost after the request had been sent, or what came over it was no answer to it."""

    fault = LOST


class Late(Broken):
    """The answer was not whole in time. The replica may be well."""

    fault = LATE


class Rejected(Exception):
    """The engine answered with an error. The body is its own words, for the gateway to translate."""

    def __init__(self, status: int, body: bytes, context_length: int) -> None:
        super().__init__(f"the engine answered {status}")
        self.status = status
        self.body = body
        self.context_length = context_length

    @property
    def fault(self) -> str:
        """As its trace is told of it."""
        return fault_of(self.status)


class Exchange(asyncio.Protocol):
    """One connection, carrying one request and its answer at a time.

    Raises:
        Broken, Late: by :meth:`ask` and :meth:`read`.
    """

    def __init__(self, pool: Upstream, address: Address) -> None:
        self.address = address
        self.status = 0
        self.fresh = True
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lost: BaseException | None = None
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._buffer: list[bytes] = []
        self._size = 0
        self._paused = False
        self._expecting = False
        self._answering = False
        self._complete = False
        self._keep = False

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    async def ask(self, head: bytes, body: bytes, timeout_s: float) -> int:
        """Send a request and wait for the head of its answer.

        Args:
            timeout_s: until when the whole answer has to be there.

        Returns:
            The status code.
        """
        assert self._transport is not None
        self._expecting = True
        self._timer = self._loop.call_later(timeout_s, self._expire)
        self._transport.write(head + body)
        while not self._answering:
            await self._news("before it answered")
        return self.status

    async def read(self) -> bytes:
        """Everything of the answer's body that has come since the last call; ``b""`` at its end."""
        while not self._buffer:
            if self._complete:
                return b""
            await self._news("in the middle of an answer")
        data = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        self._size = 0
        self._resume()
        return data

    async def whole(self) -> bytes:
        """The answer's body from here to its end."""
        pieces = []
        while data := await self.read():
            pieces.append(data)
        return b"".join(pieces)

    def finish(self) -> None:
        """Give the connection back, or end it where the answer did not come to its end.

        Ending it is what aborts the generation in the engine.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._complete and self._keep and self._lost is None:
            self._resume()
            self.fresh = False
            self._reset()
            self._pool.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _news(self, when: str) -> None:
        """Wait for whatever comes next."""
        if isinstance(self._lost, Late):
            raise self._lost
        if self._lost is not None:
            raise Broken(f"{self.address} was lost {when}") from self._lost
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expire(self) -> None:
        self._lose(Late(f"{self.address} did not answer in time"))

    def _lose(self, reason: BaseException) -> None:
        self._lost = self._lost or reason
        self.abort()
        self._wake()

    def _resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in all but their base class.
        self._transport = cast(asyncio.Transport, transport)
        wire = transport.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                wire.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._lose(error)
            return
        if self._size > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._lost or exc or ConnectionResetError()
        self._pool.forget(self)
        self._wake()

    def on_message_begin(self) -> None:
        # An answer that nobody waits for would be taken for the answer to somebody else's next request.
        if not self._expecting:
            raise httptools.HttpParserError("an answer without a request")
        self._expecting = False

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._keep = self._parser.should_keep_alive()
        self._answering = True

    def on_body(self, body: bytes) -> None:
        self._buffer.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        self._complete = True


class Upstream:
    """The pool of connections to a country's replicas. Lives in one event loop."""

    def __init__(self) -> None:
        self._idle: dict[Address, list[Exchange]] = {}

    async def connect(self, address: Address, *, fresh: bool = False) -> Exchange:
        """A connection that is ready to :meth:`Exchange.ask`; a pooled one unless ``fresh``.

        Raises:
            Unreachable: nobody listens there, or not in time.
        """
        if not fresh and (idle := self._idle.get(address)):
            return idle.pop()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, exchange = await loop.create_connection(lambda: Exchange(self, address), address.host, address.port)
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"{address}: {error}") from error
        return exchange

    def keep(self, exchange: Exchange) -> None:
        idle = self._idle.setdefault(exchange.address, [])
        if len(idle) < _IDLE_CONNECTIONS:
            idle.append(exchange)
        else:
            exchange.abort()

    def forget(self, exchange: Exchange) -> None:
        idle = self._idle.get(exchange.address)
        if idle is None:
            return
        if exchange in idle:
            idle.remove(exchange)
        if not idle:
            del self._idle[exchange.address]

    def close(self) -> None:
        """End the idle connections."""
        for exchange in [exchange for idle in self._idle.values() for exchange in idle]:
            exchange.abort()
        self._idle.clear()
