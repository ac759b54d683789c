"""What a country's gateway costs, in front of a replica that costs next to nothing.

Four processes, none pinned: stub, gateway, client, and this one, which only asks. Each round drives the stub directly
and through the gateway, one after the other, so that a busy machine slows both; the numbers are medians over rounds.

The promises are held against a stub that is served as a replica's application is. The same is measured against the
fastest stub that Python can be, since a stub's own cost flatters whoever stands in front of it; there the stream keeps
its promise too, while requests are compared with what no replica can do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.processes import Child
from tests.bench.report import CannotMeasure, Number, Report

CLIENTS = 32
CHUNKS = 64
ROUNDS = 7
LOAD_S = 1.0
GAP_MS = 5
STUBS = {"application": "", "bare": ", bare stub"}


@dataclass(frozen=True, slots=True)
class Cell:
    """What one load on one target gave."""

    requests_a_s: float
    chunks_a_s: float
    first_byte_ms: float
    cpu_ms: float
    """The gateway's own CPU time a request."""
    pieces: float
    """Reads a chunk at the client."""


@dataclass(frozen=True, slots=True)
class Round:
    """Every load once, the stub's own next to the gateway's."""

    alone: Cell
    alone_direct: Cell
    short: Cell
    short_direct: Cell
    long: Cell
    long_direct: Cell
    paced: Cell

    def chunk_us(self, streamed: Cell) -> float:
        return (streamed.cpu_ms - self.short.cpu_ms) * 1000 / (CHUNKS - 1)


class Rig:
    """The processes, and the loads that are put on them."""

    def __init__(self, stub: Child, gateway: Child, client: Child, seconds: float) -> None:
        self._stub = stub
        self._gateway = gateway
        self._client = client
        self._seconds = seconds

    def round(self) -> Round:
        return Round(
            alone_direct=self._drive(self._stub, 1, 1),
            alone=self._drive(self._gateway, 1, 1),
            short_direct=self._drive(self._stub, CLIENTS, 1),
            short=self._drive(self._gateway, CLIENTS, 1),
            long_direct=self._drive(self._stub, CLIENTS, CHUNKS),
            long=self._drive(self._gateway, CLIENTS, CHUNKS),
            paced=self._drive(self._gateway, CLIENTS, CHUNKS, GAP_MS),
        )

    def _drive(self, target: Child, clients: int, chunks: int, gap_ms: int = 0) -> Cell:
        known: dict[str, Any] = {name: self._gateway.ready[name] for name in ("key", "model")}
        load = {"clients": clients, "chunks": chunks, "seconds": self._seconds, "gap_ms": gap_ms}
        before = self._gateway.cpu_s()
        tally = self._client.ask({**known, **load, "port": target.ready["port"]})
        spent = self._gateway.cpu_s() - before
        if tally["wrong"]:
            raise CannotMeasure(f"{tally['wrong']} of {tally['requests']} answers were wrong")
        return Cell(
            requests_a_s=tally["requests"] / tally["seconds"],
            chunks_a_s=tally["chunks"] / tally["seconds"],
            first_byte_ms=tally["first_byte_ms"],
            cpu_ms=spent * 1000 / tally["requests"],
            pieces=tally["pieces"] / tally["chunks"],
        )


def measure(options: argparse.Namespace) -> Report:
    rounds = options.rounds or ROUNDS
    numbers: list[Number] = []
    for kind, remark in STUBS.items():
        with (
            TemporaryDirectory() as home,
            Child("tests.bench.stub", kind) as stub,
            Child("tests.bench.country", str(stub.ready["port"]), environment={"DOMICILE_HOME": home}) as gateway,
            Child("tests.bench.client") as client,
        ):
            rig = Rig(stub, gateway, client, options.seconds or LOAD_S)
            rig.round()
            numbers += _numbers([rig.round() for _ in range(rounds)], remark)
    return Report(
        "gateway",
        f"A stub of a replica's application, with and without the gateway in front; {CLIENTS} clients unless it says "
        f"one, {rounds} rounds.",
        tuple(numbers),
    )


def _numbers(rounds: list[Round], remark: str) -> list[Number]:
    def each(figure: Callable[[Round], float]) -> tuple[float, ...]:
        return tuple(map(figure, rounds))

    long = f"{CHUNKS} chunks"
    first_byte = each(lambda one: one.alone.first_byte_ms - one.alone_direct.first_byte_ms)
    requests = each(lambda one: one.short.requests_a_s / one.short_direct.requests_a_s)
    chunks = each(lambda one: one.long.chunks_a_s / one.long_direct.chunks_a_s)
    return [
        Number(f"added first byte, 1 client{remark}", "ms", first_byte, 1.5),
        Number(f"requests of 1 chunk{remark}", "× direct", requests, None if remark else 0.15, "higher"),
        Number(f"chunks, {long}{remark}", "× direct", chunks, 0.45, "higher"),
        Number(f"own CPU a request{remark}", "ms", each(lambda one: one.short.cpu_ms), 0.9),
        Number(f"own CPU a chunk, {long}{remark}", "µs", each(lambda one: one.chunk_us(one.long)), 15),
        Number(f"own CPU a chunk, one in {GAP_MS} ms{remark}", "µs", each(lambda one: one.chunk_us(one.paced))),
        Number(f"first byte, 1 client{remark}", "ms", each(lambda one: one.alone.first_byte_ms)),
        Number(f"first byte, 1 client{remark}, direct", "ms", each(lambda one: one.alone_direct.first_byte_ms)),
        Number(f"requests of 1 chunk{remark}", "/s", each(lambda one: one.short.requests_a_s)),
        Number(f"requests of 1 chunk{remark}, direct", "/s", each(lambda one: one.short_direct.requests_a_s)),
        Number(f"chunks, {long}{remark}", "/s", each(lambda one: one.long.chunks_a_s)),
        Number(f"chunks, {long}{remark}, direct", "/s", each(lambda one: one.long_direct.chunks_a_s)),
        Number(f"client's reads a chunk, {long}{remark}", "", each(lambda one: one.long.pieces)),
        Number(f"client's reads a chunk, {long}{remark}, direct", "", each(lambda one: one.long_direct.pieces)),
    ]
