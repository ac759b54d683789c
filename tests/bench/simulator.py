"""Does the simulator say what the engine does? The same overload for both, and how much each served as promised.

The operating point is goodput's: one and a half of what stock vLLM does, and the promise that stock keeps at half load.
The simulator is given the very requests that the engine was given, since so few of so bursty ones differ more from
seed to seed than the two may from each other. It is told what the engine says of itself while it is overloaded (its
step-time model and that model's error, read as an operator reads them), and what one caller alone measures: what passes
between two steps, on the way there and back, and how many tokens the chat template adds. Only the noise is left to
chance.
"""

from __future__ import annotations

import argparse
import http.client
import re
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import mean, median

from loadtests.record import Outcome, Record
from loadtests.scenario import load_scenario
from loadtests.schedule import make
from loadtests.targets import read_targets
from serving.batching.board import Reading
from serving.batching.simulate import simulate
from serving.batching.simulation.scenario import Scenario, StepTiming
from serving.batching.steptime import Coefficients, Step, StepTime
from serving.engine.port import METRICS
from serving.replicas.claim import HEADER, LIFETIME_S, CellKey, Claim
from serving.types import ServiceClass
from tenants.country import Slo
from tests.bench import goodput
from tests.bench.country import CODE, HOST
from tests.bench.report import CannotMeasure, Number, Report
from tests.bench.up import Home, home, replica_port

ROUNDS = 3
SEEDS = range(1, 11)
"""Of the simulated runs: one of sixty seconds takes half a second."""
APART = 0.15
"""By how much of it the simulated goodput may differ."""
ALONE_PROMPT = 40
ALONE = {
    "organisations": goodput.LIGHT[0],
    "arrivals": {"users": 1},
    "lengths": {"prompt": ALONE_PROMPT, "output": 60},
}
ALONE_S = 20.0
EVERY_S = 1.0
ERROR_TO_CV = 1.25
"""From a mean absolute error to a standard deviation, where errors are normal."""
_GAUGE = re.compile(r"^domicile:engine_([a-z_]+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


class Readings:
    """A context in which an engine is asked each second what it knows of its steps."""

    def __init__(self, at: Home) -> None:
        self._port = replica_port(at)
        self._key = CellKey((at.settings.country(CODE) / "cell.key").read_bytes())
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.seen: list[Reading] = []

    def __enter__(self) -> Readings:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def median(self, field: str) -> float:
        """Over the readings. Raises :class:`CannotMeasure` where nothing was read."""
        if not self.seen:
            raise CannotMeasure("the replica's metrics could not be read")
        return float(median(getattr(one, field) for one in self.seen))

    def coefficients(self) -> Coefficients:
        return Coefficients(**{one.name: self.median(one.name) for one in fields(Coefficients)})

    def _read(self) -> None:
        names = {one.name for one in fields(Reading)}
        while not self._done.wait(EVERY_S):
            found = {match[1]: float(match[2]) for match in _GAUGE.finditer(self._text())}
            if names <= found.keys():
                self.seen.append(Reading(**{name: found[name] for name in names}))

    def _text(self) -> str:
        now = time.time()
        claim = Claim(
            country=CODE,
            organisation="",
            request_id=f"bench_{secrets.token_hex(12)}",
            service_class=ServiceClass.BATCH,
            path=METRICS,
            deadline=now + LIFETIME_S,
            expiry=now + LIFETIME_S,
        )
        connection = http.client.HTTPConnection(HOST, self._port, timeout=5)
        try:
            connection.request("GET", METRICS, headers={HEADER: self._key.sign(claim)})
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return ""  # a reading is missed, and the next one comes in a second
        finally:
            connection.close()


def measure(options: argparse.Namespace) -> Report:
    rounds = options.rounds or ROUNDS
    folder = options.reports / "simulator"
    shutil.rmtree(folder, ignore_errors=True)
    with home(CODE) as at:
        capacity, promise = goodput.yardstick(at, folder)
        at.promise(promise)
        side = goodput.ours(at)
        with Readings(at) as told:
            alone = side.run(folder / "alone", [goodput.phase("alone", ALONE, seconds=ALONE_S)], seed=1)
        between_s, path_s = _around(told.coefficients(), alone)
        template = _template(alone)
        measured: list[float] = []
        simulated: list[float] = []
        for number in range(rounds):
            place = folder / f"{number}-overload"
            with Readings(at) as told:
                records = side.run(place, goodput.overload(capacity), seed=number + 1)
            timing = StepTiming(
                **asdict(told.coefficients()), between_s=between_s, noise=min(1.0, ERROR_TO_CV * told.median("error"))
            )
            kept = goodput.Figures({}, capacity, promise).good
            measured.append(sum(map(kept, records)) / goodput.SECONDS)
            traffic = _recorded(place, number + 1, template)
            simulated.append(mean(_simulated(timing, promise, traffic, path_s, seed) for seed in SEEDS))
    ratios = tuple(one / other for one, other in zip(simulated, measured, strict=True))
    return Report(
        "simulator",
        f"{goodput.SECONDS:g} s of 1.5 times the {capacity:.2f} requests/s that stock vLLM does, "
        f"{rounds} rounds, and {len(SEEDS)} simulated ones for each. The simulator was last told {timing}, a path of "
        f"{1000 * path_s:.0f} ms and {template} tokens of chat template.",
        (
            Number("simulated goodput apart from the engine's", "of the engine's", _apart(ratios), APART),
            Number("simulated goodput", "× the engine's", ratios),
            Number("the engine's goodput", "requests/s", tuple(measured)),
            Number("simulated goodput", "requests/s", tuple(simulated)),
        ),
    )


def _apart(ratios: Sequence[float]) -> tuple[float, ...]:
    return tuple(abs(one - 1) for one in ratios)


def _template(alone: Sequence[Record]) -> int:
    """Tokens that a prompt has beside the caller's own."""
    return round(median(one.prompt_tokens for one in alone if one.outcome is Outcome.FINISHED) - ALONE_PROMPT)


def _recorded(folder: Path, seed: int, template: int) -> list[dict[str, object]]:
    """Everything that was asked in a run, by organisation: what was refused left no lengths, so it is planned again."""
    described, targets = load_scenario(str(folder / "scenario.yaml")), read_targets(folder / "targets.json")
    asked: dict[str, list[dict[str, float]]] = {}
    for one in make(described, targets, seed, {}).arrivals:
        request = {"at_s": one.at, "prompt": one.prompt_tokens + template, "output": one.output_tokens}
        asked.setdefault(one.organisation, []).append(request)
    return [{"organisations": name, "recorded": requests} for name, requests in asked.items()]


def _around(known: Coefficients, alone: Sequence[Record]) -> tuple[float, float]:
    """What one caller alone waits for beside the engine's steps, in seconds: between two of them; until the first."""
    model = StepTime.of(known)
    served = [one for one in alone if one.outcome is Outcome.FINISHED]
    gaps, firsts = [], []
    for one in served:
        context = one.prompt_tokens + one.output_tokens // 2
        if one.inter_token_s is not None and one.first_token_s is not None:
            gaps.append(one.inter_token_s - model.predict(Step(0, 1, context)))
            firsts.append(one.first_token_s - model.predict(Step(one.prompt_tokens, 0, 0)))
    if not gaps:
        raise CannotMeasure("nobody was served alone")
    return max(0.0, median(gaps)), max(0.0, median(firsts))


def _simulated(timing: StepTiming, promise: Slo, traffic: Sequence[object], path_s: float, seed: int) -> float:
    """Requests a second that were served as promised."""
    scenario = Scenario.model_validate(
        {
            "name": "overload",
            "seed": seed,
            "duration_s": goodput.SECONDS,
            "model": "learned",
            "step_time": timing.model_dump(),
            "path_s": path_s,
            "countries": [{"code": CODE, "slo": promise.model_dump()}],
            "organisations": [{"id": one} for one in (*goodput.LIGHT, *goodput.HEAVY)],
            "traffic": traffic,
        }
    )
    (country,) = simulate(scenario).countries
    return country.total.kept / goodput.SECONDS
