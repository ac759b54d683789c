"""What it costs a gateway that every request is recorded and every answer has a receipt.

Two gateways of the same country stand before the same stub, one of which notes nothing and asks for no usage. They take
their turns within each round, so that a busy machine slows both. CPU time is of the whole process: the event loop, the
recorder's thread, and the kernel's part in its files.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from tempfile import TemporaryDirectory

from tests.bench.country import UNRECORDED
from tests.bench.gateway import CHUNKS, CLIENTS, LOAD_S, ROUNDS, Rig, Round
from tests.bench.processes import Child
from tests.bench.report import Number, Report

REQUEST_US = 200.0
CHUNK_US = 0.5
"""Nothing, as far as can be told: a chunk costs ten times as much as this, and rounds differ by about as much."""

Pair = tuple[Round, Round]


def measure(options: argparse.Namespace) -> Report:
    rounds = options.rounds or ROUNDS
    with (
        TemporaryDirectory() as home,
        TemporaryDirectory() as other,
        Child("tests.bench.stub", "bare") as stub,
        Child("tests.bench.country", _port(stub), environment={"DOMICILE_HOME": home}) as recorded,
        Child("tests.bench.country", _port(stub), UNRECORDED, environment={"DOMICILE_HOME": other}) as unrecorded,
        Child("tests.bench.client") as client,
    ):
        seconds = options.seconds or LOAD_S
        rigs = Rig(stub, recorded, client, seconds), Rig(stub, unrecorded, client, seconds)
        for rig in rigs:
            rig.round()
        pairs = [(rigs[0].round(), rigs[1].round()) for _ in range(rounds)]
    return Report(
        "recording",
        f"A gateway that records, and one that does not; {CLIENTS} clients, {rounds} rounds, bare stub.",
        _numbers(pairs),
    )


def _port(stub: Child) -> str:
    return str(stub.ready["port"])


def _numbers(pairs: list[Pair]) -> tuple[Number, ...]:
    def each(figure: Callable[[Round], float], of: int) -> tuple[float, ...]:
        return tuple(figure(pair[of]) for pair in pairs)

    def more(figure: Callable[[Round], float]) -> tuple[float, ...]:
        return tuple(with_ - without for with_, without in zip(each(figure, 0), each(figure, 1), strict=True))

    def request_us(one: Round) -> float:
        return one.short.cpu_ms * 1000

    def chunk_us(one: Round) -> float:
        return one.chunk_us(one.long)

    return (
        Number("recording, CPU a request", "µs", more(request_us), REQUEST_US),
        Number(f"recording, CPU a chunk of {CHUNKS}", "µs", more(chunk_us), CHUNK_US),
        Number("added first byte, 1 client", "ms", more(lambda one: one.alone.first_byte_ms)),
        Number("own CPU a request, recorded", "µs", each(request_us, 0)),
        Number("own CPU a request, not recorded", "µs", each(request_us, 1)),
        Number("own CPU a chunk, recorded", "µs", each(chunk_us, 0)),
        Number("own CPU a chunk, not recorded", "µs", each(chunk_us, 1)),
    )
