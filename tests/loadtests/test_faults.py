"""The fault proxy does what it says, no more, and stops when it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.mischief.faults import FaultProxy, obey, proxy_process
from loadtests.mischief.lanes import HELD_BYTES, Direction, _Lane

TEXT = bytes(range(256)) * 40


class Echo:
    """A server that sends back what it gets, and remembers how its connections ended."""

    def __init__(self) -> None:
        self.port = 0
        self.ends: list[str] = []
        self.received = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.received += len(data)
                writer.write(data)
                await writer.drain()
            self.ends.append("end")
        except ConnectionError:
            self.ends.append("reset")
        writer.close()


@asynccontextmanager
async def proxied(seed: int = 0) -> AsyncIterator[tuple[Echo, FaultProxy]]:
    echo = Echo()
    async with asyncio.timeout(10), await asyncio.start_server(echo.serve, "127.0.0.1", 0) as server:
        echo.port = server.sockets[0].getsockname()[1]
        async with FaultProxy("127.0.0.1", echo.port, seed=seed) as proxy:
            yield echo, proxy


async def opened(proxy: FaultProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def echoed(proxy: FaultProxy, data: bytes = TEXT) -> bytes:
    reader, writer = await opened(proxy)
    writer.write(data)
    writer.write_eof()
    try:
        return await reader.read(-1)
    finally:
        writer.close()


async def _read_into(got: list[bytes], reader: asyncio.StreamReader) -> None:
    while data := await reader.read(100):
        got.append(data)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - the proxy has no event for what is asked here
        await asyncio.sleep(0.002)


async def test_without_faults_it_is_not_there() -> None:
    async with proxied() as (echo, proxy):
        assert await echoed(proxy) == TEXT
        assert echo.ends == ["end"]
        await until(lambda: proxy.open == 0)


@pytest.mark.parametrize("direction", list(Direction))
async def test_latency_delays_and_reorders_nothing(direction: Direction) -> None:
    async with proxied(seed=7) as (_, proxy):
        proxy.latency(0.03, jitter_s=0.03, direction=direction)
        reader, writer = await opened(proxy)
        for at in range(0, len(TEXT), 1000):
            writer.write(TEXT[at : at + 1000])
            await asyncio.sleep(0.002)
        assert await reader.readexactly(len(TEXT)) == TEXT
        writer.close()


async def test_latency_is_at_least_what_was_asked_for() -> None:
    async with proxied() as (_, proxy):
        proxy.latency(0.1)
        began = time.monotonic()
        await echoed(proxy, b"x")
        assert time.monotonic() - began >= 0.2, "there and back"


async def test_healing_does_not_wait_for_what_was_late() -> None:
    async with proxied() as (_, proxy):
        proxy.latency(3600)
        waiting = asyncio.create_task(echoed(proxy))
        await until(lambda: proxy.open == 1)
        await asyncio.sleep(0.01)
        proxy.heal()
        assert await waiting == TEXT


@settings(max_examples=8, deadline=None)
@given(size=st.integers(1, 5000), length=st.integers(1, 9000))
async def test_slices_are_no_larger_than_asked_and_lose_nothing(size: int, length: int) -> None:
    async with proxied() as (_, proxy):
        proxy.slice(size, direction=Direction.TO_CLIENT)
        assert await echoed(proxy, TEXT[:length]) == TEXT[:length]


async def test_slices_leave_one_by_one() -> None:
    async with proxied() as (_, proxy):
        proxy.slice(4, pause_s=0.02, direction=Direction.TO_CLIENT)
        reader, writer = await opened(proxy)
        writer.write(b"0123456789")
        assert [await reader.read(100) for _ in range(3)] == [b"0123", b"4567", b"89"]
        writer.close()


async def test_a_stall_holds_connections_in_flight_and_new_ones_until_it_is_healed() -> None:
    async with proxied() as (_, proxy):
        reader, writer = await opened(proxy)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        proxy.stall()
        writer.write(b"after")
        new = asyncio.create_task(echoed(proxy))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        assert not new.done()
        proxy.heal()
        assert await reader.readexactly(5) == b"after"
        assert await new == TEXT
        writer.close()


async def test_one_direction_can_stall_alone() -> None:
    async with proxied() as (echo, proxy):
        proxy.stall(Direction.TO_CLIENT)
        answer = asyncio.create_task(echoed(proxy))
        await until(lambda: echo.received == len(TEXT))
        assert not answer.done()
        proxy.heal()
        assert await answer == TEXT


async def test_a_stalled_proxy_holds_no_more_than_its_bound() -> None:
    async with proxied() as (echo, proxy):
        proxy.stall(Direction.TO_SERVER)
        _, writer = await opened(proxy)
        await until(lambda: proxy.open == 1)
        sent, block = 0, b"x" * 65536
        with contextlib.suppress(TimeoutError):
            while sent < 64 * 1024 * 1024:
                writer.write(block)
                async with asyncio.timeout(0.3):
                    await writer.drain()
                sent += len(block)
        assert sent < 64 * 1024 * 1024, "who sends more is made to wait"
        assert echo.received == 0
        (connection,) = proxy._connections
        assert connection._lanes[Direction.TO_SERVER]._held <= HELD_BYTES + 65536
        writer.transport.abort()


async def test_a_reset_is_a_reset_for_both_ends_and_for_who_comes_next() -> None:
    async with proxied() as (echo, proxy):
        reader, writer = await opened(proxy)
        writer.write(b"hello")
        await reader.readexactly(5)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        with pytest.raises(ConnectionResetError):
            await echoed(proxy)
        await until(lambda: echo.ends.count("reset") >= 1)
        proxy.heal()
        assert await echoed(proxy) == TEXT


@pytest.mark.parametrize("after", [1, 777, len(TEXT) - 1])
async def test_a_reset_comes_after_as_many_bytes_as_asked_for(after: int) -> None:
    async with proxied() as (_, proxy):
        proxy.reset(after=after)
        reader, writer = await opened(proxy)
        writer.write(TEXT)
        got: list[bytes] = []
        with pytest.raises(ConnectionResetError):
            await _read_into(got, reader)
        assert TEXT.startswith(b"".join(got))
        assert sum(map(len, got)) <= after


async def test_half_closed_to_the_client_it_reads_an_end_and_can_still_speak() -> None:
    async with proxied() as (echo, proxy):
        proxy.half_close(after=10)
        reader, writer = await opened(proxy)
        writer.write(TEXT)
        assert await reader.read(-1) == TEXT[:10]
        writer.write(TEXT)
        await until(lambda: echo.received == 2 * len(TEXT))
        writer.write_eof()
        await until(lambda: echo.ends == ["end"])


async def test_half_closed_to_the_server_it_reads_an_end_and_can_still_answer() -> None:
    async with proxied() as (echo, proxy):
        reader, writer = await opened(proxy)
        writer.write(b"hello")
        await until(lambda: echo.received == 5)
        proxy.half_close(Direction.TO_SERVER)
        assert await reader.read(-1) == b"hello"
        assert echo.ends == ["end"]
        writer.close()


async def test_who_breaks_off_is_passed_on_as_such() -> None:
    async with proxied() as (echo, proxy):
        reader, writer = await opened(proxy)
        writer.write(b"hello")
        await reader.readexactly(5)
        wire = writer.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()
        await until(lambda: echo.ends == ["reset"])


async def test_nobody_behind_it_is_a_reset() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        async with asyncio.timeout(5), FaultProxy("127.0.0.1", probe.getsockname()[1]) as proxy:
            with pytest.raises(ConnectionResetError):
                await echoed(proxy)


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_befalls_it_what_arrives_is_a_beginning_of_what_was_sent(seed: int) -> None:
    """Random faults, one after the other: bytes may be missing at the end, and nowhere else."""
    draws = random.Random(seed)
    async with proxied(seed) as (_, proxy):
        faults = [
            lambda: proxy.latency(draws.uniform(0, 0.01), draws.uniform(0, 0.01)),
            lambda: proxy.slice(draws.randrange(1, 400)),
            lambda: proxy.stall(draws.choice(list(Direction))),
            lambda: proxy.reset(after=draws.randrange(0, 9000)),
            lambda: proxy.half_close(draws.choice([Direction.TO_SERVER, Direction.TO_CLIENT]), draws.randrange(9000)),
            proxy.heal,
        ]

        async def one() -> bytes:
            got = b""
            with contextlib.suppress(ConnectionError):
                reader, writer = await opened(proxy)
                writer.write(TEXT)
                writer.write_eof()
                while data := await reader.read(500):
                    got += data
                writer.close()
            return got

        asking = [asyncio.create_task(one()) for _ in range(5)]
        for _ in range(15):
            draws.choice(faults)()
            await asyncio.sleep(0.003)
        proxy.heal()
        for got in await asyncio.gather(*asking):
            assert TEXT.startswith(got)
        assert await echoed(proxy) == TEXT


async def test_jitter_is_the_seed_s() -> None:
    async def delays(seed: str) -> list[float]:
        """How late each of ten pieces would be, hours as they are."""
        proxy = FaultProxy("127.0.0.1", 1)
        proxy.latency(7200, jitter_s=3600)
        reader, loop = asyncio.StreamReader(), asyncio.get_running_loop()
        lane = _Lane(proxy, Direction.TO_CLIENT, reader, cast(asyncio.StreamWriter, None), seed)
        filling = asyncio.create_task(lane._fill())
        for at in range(10):
            reader.feed_data(b"x")
            await until(lambda: len(lane._line) > at)  # noqa: B023 - asked before the next
        filling.cancel()
        now = loop.time()
        return [due - now for due, _ in lane._line]

    first = await delays("3")
    assert first == pytest.approx(await delays("3"), abs=5)
    assert first != pytest.approx(await delays("4"), abs=5)
    assert all(3595 < delay <= 10800 for delay in first)
    assert first == sorted(first), "nothing overtakes"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{}", "no command"),
        ('{"do": "explode"}', "there are half-close"),
        ("no json", "Expecting"),
        ("[]", "an object"),
        ('{"do": "latency"}', "delay_s"),
        ('{"do": "latency", "delay_s": -1}', "too small"),
        ('{"do": "slice", "size": 0}', "too small"),
        ('{"do": "stall", "direction": "sideways"}', "sideways"),
    ],
)
def test_a_command_that_it_does_not_take_is_said_to_be_one(line: str, word: str) -> None:
    assert word in obey(FaultProxy("127.0.0.1", 1), line)["error"]


async def test_as_a_process_it_obeys_and_ends_with_the_block() -> None:
    echo = Echo()
    async with asyncio.timeout(20), await asyncio.start_server(echo.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with proxy_process("127.0.0.1", port) as proxy:

            async def asked() -> bytes:
                reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
                writer.write(b"hello")
                writer.write_eof()
                try:
                    return await reader.read(-1)
                finally:
                    writer.close()

            assert await asked() == b"hello"
            await asyncio.to_thread(proxy.tell, "half-close", direction="to-client", after=2)
            assert await asked() == b"he"
            await asyncio.to_thread(proxy.tell, "heal")
            assert await asked() == b"hello"
            with pytest.raises(ValueError, match="no command"):
                await asyncio.to_thread(proxy.tell, "explode")
        with pytest.raises(OSError, match="Connect"):
            await asked()


def test_the_program_ends_with_its_input_and_complains_of_a_bad_address() -> None:
    command = [sys.executable, "-m", "loadtests.mischief.faults", "--to"]
    done = subprocess.run(
        [*command, "127.0.0.1:9"], input='{"do": "heal"}\n', capture_output=True, text=True, timeout=20
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert said[0]["port"] > 0
    assert said[1:] == [{"ok": True}]
    done = subprocess.run([*command, "nowhere"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "HOST:PORT" in done.stderr
