"""A TCP proxy that goes wrong on purpose: late, in slices, not at all, or broken off.

Kernels without ``netem`` need no privileges for it. It carries bytes and knows nothing of HTTP. As a library::

    async with FaultProxy("127.0.0.1", 8461) as proxy:
        proxy.latency(0.2, jitter_s=0.05)

and as a program, ``python -m loadtests.mischief.faults --to HOST:PORT``, which prints ``{"port": …}`` and then takes
one JSON object a line on its standard input, such as ``{"do": "latency", "delay_s": 0.2}``, until that is closed. Every
command is answered with ``{"ok": true}`` or ``{"error": …}``. :class:`ProxyProcess` starts and tells such a one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Self

from loadtests.mischief.lanes import HEALTHY, READ_BYTES, Condition, Connection, Cut, Direction, each, reset


class FaultProxy:
    """Carries connections on ``port`` of loopback to ``host``:``port``, with the faults it was told last.

    Faults hold for connections in flight and for those that come, until :meth:`heal`. All randomness is of ``seed``,
    the connection's number and its direction. Raises ``OSError`` where the port cannot be had.
    """

    def __init__(self, host: str, port: int, *, listen_port: int = 0, seed: int = 0) -> None:
        self.port = listen_port
        self.accepted = 0
        self._to = (host, port)
        self._seed = seed
        self._conditions = {Direction.TO_SERVER: HEALTHY, Direction.TO_CLIENT: HEALTHY}
        self._cut: tuple[Cut, Direction, int] | None = None
        self._connections: set[Connection] = set()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._leaving = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=READ_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leaving = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.reset()
        await asyncio.gather(*(connection.ended.wait() for connection in list(self._connections)))

    @property
    def open(self) -> int:
        """Connections that it carries at this moment."""
        return len(self._connections)

    def latency(self, delay_s: float, jitter_s: float = 0.0, direction: Direction = Direction.BOTH) -> None:
        """Every byte arrives ``delay_s`` later, give or take ``jitter_s`` (uniform), and never out of order."""
        _at_least_zero(delay_s=delay_s, jitter_s=jitter_s)
        self._suffer(direction, delay_s=delay_s, jitter_s=jitter_s)

    def slice(self, size: int, pause_s: float = 0.0, direction: Direction = Direction.BOTH) -> None:
        """At most ``size`` bytes leave at once, and the next ones ``pause_s`` later."""
        _at_least_zero(size=size - 1, pause_s=pause_s)
        self._suffer(direction, slice_bytes=size, pause_s=pause_s)

    def stall(self, direction: Direction = Direction.BOTH) -> None:
        """Nothing arrives any more, and nothing is closed."""
        self._suffer(direction, stalled=True)

    def reset(self, after: int = 0, direction: Direction = Direction.TO_CLIENT) -> None:
        """Connections break off with a RST to both ends, once ``after`` more bytes went in ``direction``."""
        self._break(Connection.reset, after, direction)

    def half_close(self, direction: Direction = Direction.TO_CLIENT, after: int = 0) -> None:
        """After ``after`` more bytes in ``direction``, its receiver reads an end. What else is sent there is lost."""
        self._break(partial(Connection.half_close, direction=direction), after, direction)

    def heal(self) -> None:
        """No faults from here on. What was held back goes on; what was cut stays cut."""
        self._cut = None
        for connection in self._connections:
            connection.spare()
        self._suffer(Direction.BOTH, **asdict(HEALTHY))

    def condition(self, direction: Direction) -> Condition:
        return self._conditions[direction]

    async def changed(self) -> None:
        """Return at the next change of conditions."""
        await self._changed.wait()

    def _suffer(self, direction: Direction, **what: Any) -> None:
        for way in each(direction):
            self._conditions[way] = replace(self._conditions[way], **what)
        self._changed.set()
        self._changed = asyncio.Event()

    def _break(self, cut: Cut, after: int, direction: Direction) -> None:
        _at_least_zero(after=after)
        self._cut = (cut, direction, after)
        for connection in list(self._connections):
            connection.cut_after(*self._cut)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.accepted = self.accepted, self.accepted + 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._to, limit=READ_BYTES)
        except OSError:
            reset(writer)
            return
        if self._leaving:
            reset(writer)
            reset(far_writer)
            return
        connection = Connection(self, reader, writer, far_reader, far_writer, f"{self._seed}:{number}")
        self._connections.add(connection)
        try:
            if self._cut is not None:
                connection.cut_after(*self._cut)
            await connection.carry()
        finally:
            self._connections.discard(connection)
            connection.ended.set()


class ProxyProcess:
    """A fault proxy in a process of its own, for who has no event loop. See :func:`proxy_process`."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self._process = process
        self._lock = threading.Lock()

    def tell(self, do: str, **options: Any) -> None:
        """Give a command. Raises :class:`ValueError` for one that it does not take, ``OSError`` where it is gone."""
        with self._lock:
            self._write({"do": do, **options})
            said = _said(self._process)
        if "error" in said:
            raise ValueError(said["error"])

    def _write(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None  # noqa: S101 - made with a pipe
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()


@contextmanager
def proxy_process(host: str, port: int, *, seed: int = 0) -> Iterator[ProxyProcess]:
    """A fault proxy to ``host``:``port`` that ends with the block."""
    command = [sys.executable, "-m", "loadtests.mischief.faults", "--to", f"{host}:{port}", "--seed", str(seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield ProxyProcess(process, int(_said(process)["port"]))
        finally:
            process.terminate()


def _said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101 - made with a pipe
    line = process.stdout.readline()
    if not line:
        raise ConnectionError("the fault proxy has ended")
    said: dict[str, Any] = json.loads(line)
    return said


def obey(proxy: FaultProxy, line: str) -> dict[str, Any]:
    """Do what one line of JSON says, and answer it."""
    known: Mapping[str, Callable[..., None]] = {
        "latency": proxy.latency,
        "slice": proxy.slice,
        "stall": proxy.stall,
        "reset": proxy.reset,
        "half-close": proxy.half_close,
        "heal": proxy.heal,
    }
    try:
        options = json.loads(line)
        if not isinstance(options, dict):
            raise TypeError('a command is an object, as in {"do": "heal"}')
        command = known[options.pop("do")]
        if "direction" in options:
            options["direction"] = Direction(options["direction"])
        command(**options)
    except KeyError as error:
        return {"error": f'no command {error}; there are {", ".join(sorted(known))}, as in {{"do": "heal"}}'}
    except (ValueError, TypeError, AttributeError) as error:
        return {"error": str(error)}
    return {"ok": True}


def _at_least_zero(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} is too small")


@asynccontextmanager
async def _lines() -> AsyncIterator[asyncio.Queue[str]]:
    """Standard input, whatever it is: a thread reads it, since event loops cannot wait for every kind of file."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        with suppress(RuntimeError):
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    yield lines


async def _serve(host: str, port: int, listen_port: int, seed: int) -> None:
    async with FaultProxy(host, port, listen_port=listen_port, seed=seed) as proxy, _lines() as lines:
        print(json.dumps({"port": proxy.port}), flush=True)
        while line := await lines.get():
            if line.strip():
                print(json.dumps(obey(proxy, line)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.mischief.faults", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="where connections are carried to")
    parser.add_argument("--port", type=int, default=0, help="where it listens on 127.0.0.1; 0 for any free port")
    parser.add_argument("--seed", type=int, default=0, help="of the jitter")
    options = parser.parse_args()
    host, _, port = options.to.rpartition(":")
    if not host or not port.isdigit():
        parser.error(f"--to takes HOST:PORT, not {options.to!r}")
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(host.strip("[]"), int(port), options.port, options.seed))


if __name__ == "__main__":
    main()
