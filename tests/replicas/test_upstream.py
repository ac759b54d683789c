"""Connections to replicas: kept, found stale, held back, cut, and lied to. Against sockets that do as they are told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from serving.replicas.upstream import HIGH_WATER, Broken, Exchange, Late, Unreachable, Upstream
from serving.types import Address

HEAD = b"POST /x HTTP/1.1\r\nhost: replica\r\ncontent-length: 2\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

Handler = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The replica's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader, self.writer, self.number = reader, writer, number

    async def asked(self) -> bytes:
        return await self.reader.readexactly(len(HEAD) + 2)

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.005)

    def reset(self) -> None:
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.close()


@asynccontextmanager
async def replica(handler: Handler) -> AsyncIterator[tuple[Address, list[Peer]]]:
    peers: list[Peer] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, len(peers))
        peers.append(peer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await handler(peer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1]), peers
    finally:
        server.close()
        for peer in peers:
            peer.writer.transport.abort()


async def ask(upstream: Upstream, address: Address, timeout_s: float = 5) -> Exchange:
    exchange = await upstream.connect(address)
    assert await exchange.ask(HEAD, b"{}", timeout_s) == 200
    return exchange


async def asked_and_read(exchange: Exchange, timeout_s: float = 5) -> bytes:
    await exchange.ask(HEAD, b"{}", timeout_s)
    return await asyncio.wait_for(exchange.whole(), 3)


async def always(peer: Peer) -> None:
    while True:
        await peer.asked()
        await peer.say(OK)


async def test_a_connection_is_kept_and_used_again() -> None:
    upstream = Upstream()
    async with replica(always) as (address, peers):
        for time in range(3):
            exchange = await ask(upstream, address)
            assert exchange.fresh is (time == 0)
            assert await exchange.whole() == b"hello"
            assert await exchange.read() == b""
            exchange.finish()
        assert len(peers) == 1
        assert not (await upstream.connect(address)).fresh
        assert (await upstream.connect(address, fresh=True)).fresh


async def test_at_the_same_time_each_has_its_own() -> None:
    upstream = Upstream()
    async with replica(always) as (address, peers):
        both = [await ask(upstream, address) for _ in range(2)]
        assert both[0] is not both[1]
        for exchange in both:
            assert await exchange.whole() == b"hello"
            exchange.finish()
        assert len(peers) == 2


async def test_pieces_come_as_they_are_and_chunks_are_unwrapped() -> None:
    async def handler(peer: Peer) -> None:
        await peer.asked()
        await peer.say(CHUNKED[:20], CHUNKED[20:], b"3\r\nabc\r\n", b"2\r\nde\r", b"\n1\r\nf\r\n", b"0\r\n\r\n")

    async with replica(handler) as (address, _):
        exchange = await ask(Upstream(), address)
        assert await exchange.read() == b"abc"
        assert await exchange.whole() == b"def"


@pytest.mark.parametrize("read_first", [False, True])
async def test_an_answer_that_was_not_read_to_its_end_ends_the_connection(read_first: bool) -> None:
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.asked()
        await peer.say(CHUNKED, b"3\r\nabc\r\n")
        with contextlib.suppress(ConnectionError):
            await peer.reader.read()
        gone.set()

    upstream = Upstream()
    async with replica(handler) as (address, _):
        exchange = await ask(upstream, address)
        if read_first:
            await exchange.read()
        exchange.finish()
        await asyncio.wait_for(gone.wait(), 2)
        assert upstream._idle == {}


async def test_so_does_giving_up_before_anything_came() -> None:
    gone = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.asked()
        with contextlib.suppress(ConnectionError):
            await peer.reader.read()
        gone.set()

    async with replica(handler) as (address, _):
        exchange = await Upstream().connect(address)
        asking = asyncio.create_task(exchange.ask(HEAD, b"{}", 5))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        exchange.finish()
        await asyncio.wait_for(gone.wait(), 2)


async def test_a_connection_that_was_closed_meanwhile_leaves_the_pool() -> None:
    async def handler(peer: Peer) -> None:
        await peer.asked()
        await peer.say(OK)

    upstream = Upstream()
    async with replica(handler) as (address, _):
        exchange = await ask(upstream, address)
        await exchange.whole()
        exchange.finish()
        await asyncio.sleep(0.05)
        assert (await upstream.connect(address)).fresh
        assert upstream._idle == {}


async def test_one_that_closes_just_as_it_is_asked_says_that_it_was_not_fresh() -> None:
    async def handler(peer: Peer) -> None:
        await peer.asked()
        await peer.say(OK)
        await peer.asked()
        peer.reset()

    upstream = Upstream()
    async with replica(handler) as (address, _):
        exchange = await ask(upstream, address)
        await exchange.whole()
        exchange.finish()
        again = await upstream.connect(address)
        assert not again.fresh
        with pytest.raises(Broken):
            await again.ask(HEAD, b"{}", 5)
        again.finish()
        assert (await upstream.connect(address)).fresh


async def test_close_is_respected() -> None:
    async def handler(peer: Peer) -> None:
        await peer.asked()
        await peer.say(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        await peer.reader.read()

    upstream = Upstream()
    async with replica(handler) as (address, _):
        exchange = await ask(upstream, address)
        assert await exchange.whole() == b"hello"
        exchange.finish()
        assert upstream._idle == {}


async def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(Unreachable):
        await Upstream().connect(address)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-",
        b"HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
)
async def test_garbage_is_no_answer(said: bytes) -> None:
    async def handler(peer: Peer) -> None:
        await peer.asked()
        await peer.say(said)

    async with replica(handler) as (address, _):
        exchange = await Upstream().connect(address)
        with pytest.raises(Broken):
            await asked_and_read(exchange)
        exchange.finish()


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\nzz\r\n",
        CHUNKED + b"5\r\nhelloX\r\n",
        # Without a length a torn answer cannot be told from a whole one.
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ],
)
@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_an_answer_that_stops_halfway_is_broken(said: bytes, how: str) -> None:
    over = asyncio.Event()

    async def handler(peer: Peer) -> None:
        await peer.asked()
        await peer.say(said)
        if how == "reset":
            peer.reset()
        elif how == "half-close":
            peer.writer.write_eof()
            await over.wait()

    upstream = Upstream()
    async with replica(handler) as (address, _):
        exchange = await upstream.connect(address)
        with pytest.raises(Broken):
            await asked_and_read(exchange)
        exchange.finish()
        over.set()
        assert upstream._idle == {}


@pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstole", b"x", b"HTTP/1.1 2"])
async def test_an_answer_without_a_request_is_never_taken_for_the_next_one_s(extra: bytes) -> None:
    """Else one organisation could be given what another had asked for."""

    async def handler(peer: Peer) -> None:
        await peer.asked()
        await peer.say(OK, extra if peer.number == 0 else b"")
        await always(peer)

    upstream = Upstream()
    async with replica(handler) as (address, peers):
        exchange = await ask(upstream, address)
        assert await exchange.whole() == b"hello"
        exchange.finish()
        await asyncio.sleep(0.05)
        again = await ask(upstream, address)
        assert await again.whole() == b"hello"
        again.finish()
        assert len(peers) == 2


async def test_nor_when_it_comes_with_the_first() -> None:
    async def handler(peer: Peer) -> None:
        await peer.asked()
        await peer.say(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstole")
        await peer.reader.read()

    upstream = Upstream()
    async with replica(handler) as (address, _):
        exchange = await ask(upstream, address)
        assert await exchange.whole() == b"hello"
        exchange.finish()
        assert upstream._idle == {}


async def test_an_upgrade_is_not_gone_along_with() -> None:
    async def handler(peer: Peer) -> None:
        await peer.asked()
        await peer.say(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nx")
        await peer.reader.read()

    upstream = Upstream()
    async with replica(handler) as (address, _):
        exchange = await upstream.connect(address)
        assert await exchange.ask(HEAD, b"{}", 5) == 101
        exchange.finish()
        assert upstream._idle == {}


@pytest.mark.parametrize("said", [b"", CHUNKED + b"5\r\nhello\r\n"])
async def test_an_answer_has_to_be_there_in_time(said: bytes) -> None:
    async def handler(peer: Peer) -> None:
        await peer.asked()
        await peer.say(said)
        await peer.reader.read()

    async with replica(handler) as (address, _):
        exchange = await Upstream().connect(address)
        with pytest.raises(Late):
            await asked_and_read(exchange, timeout_s=0.1)
        exchange.finish()


async def test_a_trickle_does_not_prolong_it() -> None:
    async def handler(peer: Peer) -> None:
        await peer.asked()
        await peer.say(CHUNKED, *[b"1\r\nx\r\n"] * 1000)

    async with replica(handler) as (address, _):
        exchange = await Upstream().connect(address)
        with pytest.raises(Late):
            await asked_and_read(exchange, timeout_s=0.2)
        exchange.finish()


async def test_a_finished_exchange_has_no_deadline_left() -> None:
    upstream = Upstream()
    async with replica(always) as (address, _):
        exchange = await ask(upstream, address, timeout_s=0.1)
        await exchange.whole()
        exchange.finish()
        await asyncio.sleep(0.2)
        assert not (await upstream.connect(address)).fresh


async def test_a_client_that_does_not_read_holds_the_replica_back() -> None:
    block, blocks = b"10000\r\n" + b"x" * 0x10000 + b"\r\n", 512
    sent = 0

    async def handler(peer: Peer) -> None:
        nonlocal sent
        await peer.asked()
        peer.writer.write(CHUNKED)
        for _ in range(blocks):
            peer.writer.write(block)
            await peer.writer.drain()
            sent += 1
        await peer.say(b"0\r\n\r\n")
        await always(peer)

    upstream = Upstream()
    async with replica(handler) as (address, _):
        exchange = await ask(upstream, address)
        await asyncio.sleep(0.3)
        held = exchange._size
        assert HIGH_WATER < held < 3 * HIGH_WATER, "what waits here is bounded"
        assert sent < blocks, "the replica waits"
        total = 0
        while data := await exchange.read():
            total += len(data)
            assert exchange._size < 3 * HIGH_WATER
        assert total == blocks * 0x10000
        exchange.finish()
        # Held back or not, the connection is as good as new.
        again = await ask(upstream, address)
        assert not again.fresh
        assert await again.whole() == b"hello"


async def test_a_connection_that_was_held_back_is_not_deaf_in_the_pool() -> None:
    async def handler(peer: Peer) -> None:
        await peer.asked()
        size = HIGH_WATER + 1
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
        await always(peer)

    upstream = Upstream()
    async with replica(handler) as (address, _):
        exchange = await ask(upstream, address)
        await asyncio.sleep(0.2)
        assert exchange._complete
        assert exchange._paused
        exchange.finish()
        again = await ask(upstream, address)
        assert not again.fresh
        assert await asyncio.wait_for(again.whole(), 2) == b"hello"


async def test_the_pool_is_bounded_and_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.replicas.upstream._IDLE_CONNECTIONS", 2)
    upstream = Upstream()
    async with replica(always) as (address, peers):
        many = [await ask(upstream, address) for _ in range(4)]
        for exchange in many:
            await exchange.whole()
            exchange.finish()
        assert len(upstream._idle[address]) == 2
        upstream.close()
        assert upstream._idle == {}
        assert (await ask(upstream, address)).fresh
        assert len(peers) == 5


async def test_small_writes_are_not_delayed_and_a_vanished_node_is_noticed() -> None:
    async with replica(always) as (address, _):
        exchange = await ask(Upstream(), address)
        assert exchange._transport is not None
        wire = exchange._transport.get_extra_info("socket")
        assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 10
        await exchange.whole()
        exchange.finish()
