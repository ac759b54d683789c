"""What a country's gateway costs, in front of a replica that costs nearly nothing.

Four processes, none pinned: stub, gateway, client, and this one, which only asks. Each round drives the stub directly
and through the gateway, one after the other, so that a busy machine slows both; the numbers are medians over rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.processes import Child
from tests.bench.report import CannotMeasure, Number, Report

CLIENTS = 32
CHUNKS = 64
ROUNDS = 7
CELL_S = 1.5
GAP_MS = 5


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


class Rig:
    """The processes, and the loads that are put on them."""

    def __init__(self, stub: Child, gateway: Child, client: Child, seconds: float) -> None:
        self._stub = stub
        self._gateway = gateway
        self._client = client
        self._seconds = seconds

    def direct(self, clients: int, chunks: int) -> Cell:
        return self._drive(self._stub.ready["port"], clients, chunks, {})

    def through(self, clients: int, chunks: int, **more: int) -> Cell:
        return self._drive(self._gateway.ready["port"], clients, chunks, more)

    def _drive(self, port: int, clients: int, chunks: int, more: Mapping[str, int]) -> Cell:
        known: dict[str, Any] = {name: self._gateway.ready[name] for name in ("key", "model")}
        spent = self._gateway.cpu_s()
        tally = self._client.ask(
            {**known, "port": port, "clients": clients, "chunks": chunks, "seconds": self._seconds, **more}
        )
        spent = self._gateway.cpu_s() - spent
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
    with (
        TemporaryDirectory() as home,
        Child("tests.bench.stub") as stub,
        Child("tests.bench.country", str(stub.ready["port"]), environment={"DOMICILE_HOME": home}) as gateway,
        Child("tests.bench.client") as client,
    ):
        rig = Rig(stub, gateway, client, options.seconds or CELL_S)
        _round(rig)
        return _report([_round(rig) for _ in range(rounds)])


def _round(rig: Rig) -> dict[str, Cell]:
    return {
        "direct alone": rig.direct(1, 1),
        "alone": rig.through(1, 1),
        "direct short": rig.direct(CLIENTS, 1),
        "short": rig.through(CLIENTS, 1),
        "direct long": rig.direct(CLIENTS, CHUNKS),
        "long": rig.through(CLIENTS, CHUNKS),
        "paced": rig.through(CLIENTS, CHUNKS, gap_ms=GAP_MS),
    }


def _report(rounds: list[dict[str, Cell]]) -> Report:
    def number(name: str, unit: str, figures: list[float], target: float | None = None, better: str = "lower") -> Number:
        assert better in ("lower", "higher")
        return Number(name, unit, tuple(figures), target, "lower" if better == "lower" else "higher")

    def chunk_us(cells: dict[str, Cell], streamed: str) -> float:
        return (cells[streamed].cpu_ms - cells["short"].cpu_ms) * 1000 / (CHUNKS - 1)

    added = [one["alone"].first_byte_ms - one["direct alone"].first_byte_ms for one in rounds]
    requests = [one["short"].requests_a_s / one["direct short"].requests_a_s for one in rounds]
    chunks = [one["long"].chunks_a_s / one["direct long"].chunks_a_s for one in rounds]
    return Report(
        "gateway",
        f"A fast stub of a replica's application, with and without the gateway in front; {CLIENTS} clients unless it "
        f"says one, {len(rounds)} rounds.",
        (
            number("added first byte, 1 client", "ms", added, 1.5),
            number("requests, 1 chunk, × direct", "", requests, 0.15, "higher"),
            number(f"chunks, {CHUNKS} a request, × direct", "", chunks, 0.45, "higher"),
            number("own CPU a request", "ms", [one["short"].cpu_ms for one in rounds], 0.9),
            number("own CPU a streamed chunk", "µs", [chunk_us(one, "long") for one in rounds], 15),
            number(f"the same, a chunk every {GAP_MS} ms", "µs", [chunk_us(one, "paced") for one in rounds]),
            number("requests", "/s", [one["short"].requests_a_s for one in rounds]),
            number("requests, direct", "/s", [one["direct short"].requests_a_s for one in rounds]),
            number("chunks", "/s", [one["long"].chunks_a_s for one in rounds]),
            number("chunks, direct", "/s", [one["direct long"].chunks_a_s for one in rounds]),
            number("client's reads a chunk", "", [one["long"].pieces for one in rounds]),
            number("client's reads a chunk, direct", "", [one["direct long"].pieces for one in rounds]),
            number("first byte, 1 client", "ms", [one["alone"].first_byte_ms for one in rounds]),
            number("first byte, 1 client, direct", "ms", [one["direct alone"].first_byte_ms for one in rounds]),
        ),
    )
