"""The connections that a fault proxy carries: two directions, each a bounded delay line that can be cut."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Protocol

READ_BYTES = 64 * 1024
HELD_BYTES = 256 * 1024
"""What one direction of a connection may hold back. Who sends more has to wait, as behind a full network."""
_END = b""


class Direction(StrEnum):
    """Which way bytes go. A client opened the connection, a server accepted it."""

    TO_SERVER = "to-server"
    TO_CLIENT = "to-client"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Condition:
    """What one direction suffers."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    slice_bytes: int = 0
    """Largest piece that is sent at once; 0 for no slices."""
    pause_s: float = 0.0
    """Between two slices."""
    stalled: bool = False


HEALTHY = Condition()
Cut = Callable[["Connection"], None]
"""What becomes of a connection that is cut."""


class Weather(Protocol):
    """Where a lane looks up what it suffers."""

    def condition(self, direction: Direction) -> Condition: ...

    async def changed(self) -> None:
        """Return at the next change of conditions."""


class Connection:
    """Two lanes that share their end."""

    def __init__(
        self,
        weather: Weather,
        near_reader: asyncio.StreamReader,
        near_writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
        seed: str,
    ) -> None:
        self.ended = asyncio.Event()
        self._broken = asyncio.Event()
        self._writers = (near_writer, far_writer)
        for writer in self._writers:
            # Slices have to leave as slices, not as what Nagle's algorithm makes of them.
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lanes = {
            Direction.TO_SERVER: _Lane(weather, Direction.TO_SERVER, near_reader, far_writer, seed),
            Direction.TO_CLIENT: _Lane(weather, Direction.TO_CLIENT, far_reader, near_writer, seed),
        }

    async def carry(self) -> None:
        """Until both ends were passed on, or the connection broke."""
        lanes = asyncio.gather(*(lane.run() for lane in self._lanes.values()))
        broken = asyncio.ensure_future(self._broken.wait())
        try:
            await asyncio.wait((lanes, broken), return_when=asyncio.FIRST_COMPLETED)
            if not self._broken.is_set() and lanes.exception() is not None:
                # One end is gone: tell the other so in the same way.
                self.reset()
        finally:
            for task in (lanes, broken):
                task.cancel()
            await asyncio.gather(lanes, broken, return_exceptions=True)
            for writer in self._writers:
                writer.close()

    def reset(self) -> None:
        for writer in self._writers:
            reset(writer)
        self._broken.set()

    def half_close(self, direction: Direction) -> None:
        for way in each(direction):
            self._lanes[way].end()

    def cut_after(self, cut: Cut, direction: Direction, after: int) -> None:
        for way in each(direction):
            self._lanes[way].cut_after(after, partial(cut, self))

    def spare(self) -> None:
        for lane in self._lanes.values():
            lane.spare()


@dataclass(slots=True)
class _Lane:
    """One direction of one connection: a bounded delay line from a reader to a writer."""

    weather: Weather
    direction: Direction
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    seed: str
    _line: deque[tuple[float, bytes | None]] = field(default_factory=deque)
    """When each piece is due; ``None`` stands for a sender that broke off."""
    _held: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _room: asyncio.Event = field(default_factory=asyncio.Event)
    _left: int = -1
    """Bytes until the cut; negative for none."""
    _cut: Callable[[], None] | None = None
    _ended: bool = False

    async def run(self) -> None:
        """Raises ``OSError`` where either end broke off."""
        filling = asyncio.ensure_future(self._fill())
        try:
            await self._drain()
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)

    def end(self) -> None:
        """Say that nothing more comes, whatever else is read."""
        self._ended = True
        with suppress(OSError, RuntimeError):
            self.writer.write_eof()

    def cut_after(self, after: int, cut: Callable[[], None]) -> None:
        self._left, self._cut = after, cut
        if after == 0:
            cut()

    def spare(self) -> None:
        self._left, self._cut = -1, None

    async def _fill(self) -> None:
        jitter = random.Random(f"{self.seed}:{self.direction}")
        due, loop = 0.0, asyncio.get_running_loop()
        data = b"-"
        while data != _END:
            try:
                data = await self.reader.read(READ_BYTES)
            except OSError:
                # What was read before it broke still arrives, and then the break does.
                self._put(due, None)
                return
            condition = self.weather.condition(self.direction)
            shift = condition.jitter_s * jitter.uniform(-1, 1) if condition.jitter_s else 0.0
            due = max(due, loop.time() + max(0.0, condition.delay_s + shift))
            self._put(due, data)
            while self._held >= HELD_BYTES:
                self._room.clear()
                await self._room.wait()

    def _put(self, due: float, data: bytes | None) -> None:
        self._line.append((due, data))
        self._held += len(data or _END)
        self._news.set()

    async def _drain(self) -> None:
        while True:
            while not self._line:
                self._news.clear()
                await self._news.wait()
            due, data = self._line.popleft()
            await self._until(due)
            if data is None:
                raise ConnectionResetError("the sender broke off")
            if data == _END:
                await self._flowing()
                self.end()
                return
            await self._send(data)
            self._held -= len(data)
            self._room.set()

    async def _until(self, due: float) -> None:
        """Wait for the time, or for conditions under which nobody has to."""
        loop = asyncio.get_running_loop()
        while (left := due - loop.time()) > 0 and _late(self.weather.condition(self.direction)):
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.weather.changed()

    async def _flowing(self) -> None:
        while self.weather.condition(self.direction).stalled:
            await self.weather.changed()

    async def _send(self, data: bytes) -> None:
        while data:
            await self._flowing()
            if self._ended:
                return
            condition = self.weather.condition(self.direction)
            size = condition.slice_bytes or len(data)
            if self._cut is not None and self._left > 0:
                size = min(size, self._left)
            piece, data = data[:size], data[size:]
            self.writer.write(piece)
            await self.writer.drain()
            self._count(len(piece))
            if data and condition.pause_s:
                await asyncio.sleep(condition.pause_s)

    def _count(self, sent: int) -> None:
        if self._cut is None or self._left <= 0:
            return
        self._left = max(0, self._left - sent)
        if self._left == 0:
            self._cut()


def _late(condition: Condition) -> bool:
    return condition.delay_s > 0 or condition.jitter_s > 0


def each(direction: Direction) -> tuple[Direction, ...]:
    return (Direction.TO_SERVER, Direction.TO_CLIENT) if direction is Direction.BOTH else (direction,)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other end reads ECONNRESET: with nothing to linger for, the kernel sends a RST."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
