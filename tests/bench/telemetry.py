"""What it costs a gateway to tell what becomes of requests: figures only, one request in twenty traced, and every one.

Gateways of the same country stand before the same stub, one of which keeps no figures. They take their turns within
each round. CPU time is of the whole process: the event loop and the thread that carries to the collector. The stub
answers for a replica, so its own spans, which only a traced request has, are not in here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from tempfile import TemporaryDirectory

from tests.bench.country import UNTOLD
from tests.bench.gateway import CHUNKS, CLIENTS, LOAD_S, ROUNDS, Rig, Round
from tests.bench.processes import Child
from tests.bench.report import Number, Report
from tests.records.telemetry.collector import collecting

REQUEST_US = 30.0
"""For figures alone; a request takes twenty times as much."""
CHUNK_US = 0.5
"""Nothing, as far as can be told."""
Rounds = dict[str, list[Round]]


def measure(options: argparse.Namespace) -> Report:
    rounds, seconds = options.rounds or ROUNDS, options.seconds or LOAD_S
    with ExitStack() as leaving:
        collector = leaving.enter_context(collecting())
        stub = leaving.enter_context(Child("tests.bench.stub", "bare"))
        client = leaving.enter_context(Child("tests.bench.client"))

        def gateway(*words: str) -> Rig:
            home = {"DOMICILE_HOME": leaving.enter_context(TemporaryDirectory())}
            port = str(stub.ready["port"])
            return Rig(
                stub,
                leaving.enter_context(Child("tests.bench.country", port, *words, environment=home)),
                client,
                seconds,
            )

        rigs = {
            "untold": gateway(UNTOLD),
            "figures": gateway(),
            "traced 1 in 20": gateway(f"{collector.endpoint}=0.05"),
            "all traced": gateway(f"{collector.endpoint}=1.0"),
        }
        for rig in rigs.values():
            rig.round()
        done: Rounds = {name: [] for name in rigs}
        for _ in range(rounds):
            for name, rig in rigs.items():
                done[name].append(rig.round())
    about = f"Gateways that tell nothing, figures, and traces; {CLIENTS} clients, {rounds} rounds, bare stub."
    return Report("telemetry", about, _numbers(done))


def _numbers(done: Rounds) -> tuple[Number, ...]:
    def more(name: str, figure: Callable[[Round], float]) -> tuple[float, ...]:
        return tuple(figure(one) - figure(other) for one, other in zip(done[name], done["untold"], strict=True))

    def request_us(one: Round) -> float:
        return one.short.cpu_ms * 1000

    def chunk_us(one: Round) -> float:
        return one.chunk_us(one.long)

    told = [name for name in done if name != "untold"]
    return (
        *(
            Number(f"{name}, CPU a request", "µs", more(name, request_us), REQUEST_US if name == "figures" else None)
            for name in told
        ),
        *(
            Number(f"{name}, CPU a chunk of {CHUNKS}", "µs", more(name, chunk_us), None if "all" in name else CHUNK_US)
            for name in told
        ),
        Number("own CPU a request, untold", "µs", tuple(map(request_us, done["untold"]))),
        Number("own CPU a chunk, untold", "µs", tuple(map(chunk_us, done["untold"]))),
    )
