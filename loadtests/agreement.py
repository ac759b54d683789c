"""How often the verdicts on repeated runs of the same build agree.

    python -m loadtests.agreement                                     simulated builds
    python -m loadtests.agreement --real 20 steady --targets t.json   one build, really run so many times

A simulated build is a load on a server with so many slots and a queue before them, whose speed drifts as a shared
machine's does. The loads go from ones at which every promise is easily kept to ones at which none is, through those
at which the share of kept promises is the objective itself: no rule can agree with itself where the truth is on its
border, so it matters where that is and how narrow. For comparison, the rule that takes the measured share at its
word.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.judging.checks import claims, decide
from loadtests.judging.evidence import Evidence
from loadtests.record import OURS, Kind, Outcome, Record, Run
from loadtests.scenario import Scenario
from loadtests.targets import Targets

LOADS = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.3)
SLOTS = 16
DURATION_S = 100.0
OBJECTIVE = 0.95
BANDS = (0.0, 0.5, 0.8, 0.9, 0.94, 0.96, 0.98, 1.0001)
DRIFT = 0.05
"""Standard deviation of the logarithm of the machine's speed, which forgets itself within some ten seconds."""
_SERVICE_S, _TOKENS, _PREFILL_S = 2.5, 25, 0.25
_SPREAD, _DRIFT_S = 0.5, 10.0
_COUNTRY, _PHASE = "ee", "steady"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Repeated runs of one build, or of several. Shares are of runs."""

    goodput: float
    """Mean over the runs."""
    failing: float
    agreeing: float
    """With the majority of their build's."""
    agreeing_by_value: float
    """The same, had the measured share alone decided."""


def simulate(load: float, repeats: int, seed: str) -> Agreement:
    """One build, run so many times."""
    runs = [_judged(load, f"{seed} {load}", repeat) for repeat in range(repeats)]
    passed = [one for one, _ in runs]
    goodput = [one for _, one in runs]
    return Agreement(
        sum(goodput) / repeats,
        1 - sum(passed) / repeats,
        _majority(passed),
        _majority([one >= OBJECTIVE for one in goodput]),
    )


def _majority(runs: Sequence[object]) -> float:
    return Counter(runs).most_common(1)[0][1] / len(runs)


def _judged(load: float, build: str, repeat: int) -> tuple[bool, float]:
    """Whether a run passes, and its goodput."""
    evidence = Evidence(simulated_run(load, build, repeat))
    found = claims(evidence)
    decided = [decide(claim, len(found)) for claim in found]
    goodput = next(check.value for check in decided if check.name == "goodput")
    return all(check.passed is not False for check in decided), goodput or 0.0


def simulated_run(load: float, build: str, repeat: int) -> Run:
    """One run of a build: Poisson arrivals at ``load`` times what its slots can serve.

    Repeated runs send the same requests at the same times, as real ones do, and meet a machine in another mood.
    """
    arrivals, machine = random.Random(build), random.Random(f"{build} {repeat}")
    return Run(Path("simulated"), _plan(), tuple(_records(load, arrivals, machine)), (), ())


def _records(load: float, arrivals: random.Random, machine: random.Random) -> Iterator[Record]:
    free = [0.0] * SLOTS
    at, drift, serial = 0.0, machine.gauss(0.0, DRIFT), 0
    while True:
        gap = arrivals.expovariate(load * SLOTS / _SERVICE_S)
        at += gap
        if at >= DURATION_S:
            return
        kept = math.exp(-gap / _DRIFT_S)
        drift = kept * drift + math.sqrt(1 - kept * kept) * machine.gauss(0.0, DRIFT)
        took = _SERVICE_S * math.exp(drift + arrivals.gauss(-_SPREAD * _SPREAD / 2, _SPREAD))
        begins = max(at, heapq.heappop(free))
        heapq.heappush(free, begins + took)
        serial += 1
        yield _record(serial, at, begins + _PREFILL_S, begins + took, math.exp(drift))


def _record(serial: int, at: float, first: float, ended: float, slowness: float) -> Record:
    return Record(
        serial=serial,
        phase=_PHASE,
        side=OURS,
        country=_COUNTRY,
        organisation="acme",
        service_class="standard",
        kind=Kind.CHAT,
        intended=at,
        sent=at,
        first=first,
        ended=max(ended, first),
        outcome=Outcome.FINISHED,
        status=200,
        code="",
        retry_after_s=None,
        prompt_tokens=100,
        cached_tokens=0,
        output_tokens=_TOKENS,
        finish_reason="length",
        gaps=((_SERVICE_S / _TOKENS * slowness, _TOKENS - 1),),
        terminals=1,
        said_country=_COUNTRY,
        request_id="",
    )


def _plan() -> dict[str, Any]:
    phase = {"name": _PHASE, "duration_s": DURATION_S}
    described = {"name": "agreement", "title": "Agreement", "organisations": [{"id": "acme"}], "phases": [phase]}
    country = {
        "code": _COUNTRY,
        "base_url": "http://127.0.0.1:1/v1",
        "model": "simulated",
        "slo": {"objective": OBJECTIVE},
    }
    targets = {"sides": [{"name": OURS, "countries": [country]}]}
    return {
        "scenario": Scenario.model_validate(described).model_dump(mode="json"),
        "targets": Targets.model_validate(targets).without_keys(),
        "phases": [{"name": _PHASE, "side": OURS, "begin": 0.0, "end": DURATION_S, "judged": True}],
    }


def repeat(times: int, arguments: Sequence[str]) -> list[int]:
    """The exit codes of ``python -m loadtests run`` with these arguments, one run after the other."""
    found = []
    with tempfile.TemporaryDirectory(prefix="loadtests-agreement-") as folder:
        for index in range(times):
            command = [sys.executable, "-m", "loadtests", "run", *arguments]
            found.append(subprocess.run([*command, "--out", f"{folder}/{index}", "--quiet"], check=False).returncode)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.agreement", description="Do repeated runs agree?")
    parser.add_argument("--builds", type=int, default=20, help="simulated builds at each load (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="runs of each of them (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", type=int, metavar="N", help="run N times what follows, as for `loadtests run`")
    chosen, rest = parser.parse_known_args()
    console = Console(highlight=False)
    if chosen.real:
        codes = repeat(chosen.real, rest)
        console.print(f"exit codes {dict(Counter(codes))}: {_majority(codes):.1%} agree with the majority")
        return 0
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    builds = [
        simulate(load, chosen.repeats, f"{chosen.seed} {build}") for load in LOADS for build in range(chosen.builds)
    ]
    console.print(_table(builds))
    return 0


def _table(builds: Sequence[Agreement]) -> Table:
    table = Table(title=f"Agreement with the majority of a build's runs; objective {OBJECTIVE:.0%}")
    for name in ("a build's goodput", "builds", "failing", "agreeing", "by the value alone"):
        table.add_column(name, justify="right")
    for low, high in pairwise(BANDS):
        table.add_row(f"{low:.0%} to {high:.0%}", *_row([one for one in builds if low <= one.goodput < high]))
    table.add_section()
    table.add_row("that keep the promise", *_row([one for one in builds if one.goodput >= OBJECTIVE]))
    table.add_row("all", *_row(builds))
    return table


def _row(builds: Sequence[Agreement]) -> tuple[str, ...]:
    if not builds:
        return ("0",)
    shares = zip(*((one.failing, one.agreeing, one.agreeing_by_value) for one in builds), strict=True)
    return (str(len(builds)), *(f"{sum(share) / len(builds):.1%}" for share in shares))


if __name__ == "__main__":
    sys.exit(main())
