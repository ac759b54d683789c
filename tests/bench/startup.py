"""What two countries cost to start, in time and memory, against one vLLM server of the same model.

Memory is the proportional set size (PSS) of every process that was started: what several share is counted once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psutil

from serving.engine.models import weights
from tenants.registry import Registry
from tests.bench.report import Number, Report
from tests.bench.stock import EAGER, stock, tree
from tests.bench.up import Home, bring_up, home

CODES = ("ee", "kr")
ROUNDS = 3
TIME_TARGET = 2.5
MEMORY_FACTOR = 2.0
MEMORY_SPARE_GIB = 2.0


@dataclass(frozen=True, slots=True)
class Started:
    """One start."""

    seconds: float
    gib: float


def measure(options: argparse.Namespace) -> Report:
    rounds = options.rounds or ROUNDS
    with home(*CODES) as at:
        country, _ = Registry.load(at.countries).select(CODES)
        model = Path(weights(country.models[0].source, at.settings.models))
        pairs = [(_vllm(model), _countries(at)) for _ in range(rounds)]
    over = tuple(ours.gib - MEMORY_FACTOR * theirs.gib for theirs, ours in pairs)
    return Report(
        "startup",
        f"Two countries of one replica each until both are ready, and vLLM's own server until it is; {rounds} rounds.",
        (
            Number("time until ready", "× vLLM", tuple(b.seconds / a.seconds for a, b in pairs), TIME_TARGET),
            Number(f"memory beyond {MEMORY_FACTOR:g} × vLLM's", "GiB", over, MEMORY_SPARE_GIB),
            Number("two countries, until ready", "s", tuple(ours.seconds for _, ours in pairs)),
            Number("vLLM, until ready", "s", tuple(theirs.seconds for theirs, _ in pairs)),
            Number("two countries, memory", "GiB", tuple(ours.gib for _, ours in pairs)),
            Number("vLLM, memory", "GiB", tuple(theirs.gib for theirs, _ in pairs)),
        ),
    )


def _countries(at: Home) -> Started:
    begun = perf_counter()
    bring_up(at)
    started = Started(perf_counter() - begun, pss_gib(at.processes()))
    at.domicile("down")
    return started


def _vllm(model: Path) -> Started:
    begun = perf_counter()
    with stock(model, *EAGER, tuned=False) as server:
        return Started(perf_counter() - begun, pss_gib(tree(server.pid)))


def pss_gib(processes: Iterable[psutil.Process]) -> float:
    """Gibibytes of all these processes together; those that are gone have none."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / 2**30
