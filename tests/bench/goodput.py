"""Goodput and fairness on the open-loop generator, against tuned stock vLLM with admission caps of its own.

Four loads, each given to both sides in turn, with the same requests: half of the capacity, chats with a document now
and then, one and a half of the capacity from steady and bursty organisations, and three light organisations beside one
that floods with long prompts. Capacity is
stock's, of 32 clients in a closed loop. A request is good when it was served as the country's tenant.yaml promises, and
what that promises is chosen so that stock, uncapped, keeps it at half load: the tightest that it does. Every run stays
under ``goodput/`` beside the report, to be looked into.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import yaml

from loadtests.record import Outcome, Record, Run
from serving.engine.models import weights
from tenants.country import Slo
from tenants.registry import Registry
from tests.bench.country import CODE, HOST
from tests.bench.processes import stopped
from tests.bench.report import ROOT, CannotMeasure, Number, Report
from tests.bench.stock import EAGER, stock, tree
from tests.bench.up import Home, bring_up, home

Phase = dict[str, Any]
"""Of a scenario, as its YAML has it."""

ROUNDS = 3
SECONDS = 60.0
CLIENTS = 32
LIMIT_S = 420.0
LENGTHS: dict[str, Any] = {"trace": "azure-conversation", "prompt_scale": 0.05, "output_scale": 0.1}
FLOOD = {"prompt": 1200, "output": 16}
DOCUMENT = {"prompt": 800, "output": 40}
FLOOD_RATE = 2.0
"""Long prompts a second: about three times what two cores prefill of them."""
CAPS = ("--max-num-queued-reqs", "24")
"""Stock's own admission control, with which it had most goodput in overload: of 12, 16, 20, 24, 32 and 40."""
LIGHT = tuple(f"light-{number}" for number in range(1, 4))
HEAVY = ("bursty-1", "bursty-2")
NOISY = ("noisy",)
KEPT = 0.96
"""Share of stock's requests at half load that keep the inter-token promise: 95% is what is asked for of both."""
COARSE_S = 0.05
"""To which multiple it is rounded up."""


@dataclass(frozen=True, slots=True)
class Side:
    """Somebody who answers, and the keys to ask with."""

    name: str
    base_url: str
    model: str
    keys: Mapping[str, str] = field(default_factory=dict)
    others: Callable[[], Sequence[psutil.Process]] = tuple
    """Processes that have no part in it, and are stopped while it is asked."""

    def run(self, folder: Path, phases: Sequence[Phase], seed: int) -> list[Record]:
        """Everything that was asked in the last of the phases; the others warm up."""
        folder.mkdir(parents=True)
        scenario, targets = folder / "scenario.yaml", folder / "targets.json"
        organisations = [{"id": one} for one in (*LIGHT, *HEAVY, *NOISY)]
        described = {"name": "goodput", "title": "Goodput", "organisations": organisations, "phases": list(phases)}
        scenario.write_text(yaml.safe_dump({**described, "expect": {"slo": False}, "drain_s": 30}))
        asking = [{"id": one["id"], "key": self.keys.get(one["id"], "none")} for one in organisations]
        country = {"code": CODE, "base_url": self.base_url, "model": self.model, "organisations": asking}
        targets.touch(mode=0o600)
        targets.write_text(
            json.dumps({"sides": [{"name": "domicile", "countries": [{**country, "residency": False}]}]})
        )
        words = ["run", str(scenario), "--targets", str(targets), "--out", str(folder / "run")]
        line = [sys.executable, "-m", "loadtests", *words, "--seed", str(seed), "--quiet"]
        with stopped(self.others()):
            done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if not (folder / "run" / "requests.jsonl").exists():
            raise CannotMeasure(f"{self.name}: {done.stderr[-1000:]}")
        last = str(phases[-1]["name"])
        return [record for record in Run.read(folder / "run").records if record.phase == last]


@dataclass(frozen=True, slots=True)
class Load:
    """One of them."""

    name: str
    phases: Callable[[float], list[Phase]]
    """For a capacity in requests a second."""


def phase(name: str, *traffic: Mapping[str, object], seconds: float = SECONDS) -> Phase:
    return {"name": name, "duration_s": seconds, "traffic": [dict(one) for one in traffic]}


def _stream(organisation: str, rate: float, **more: object) -> Phase:
    arrivals = {"rate": rate, **({"process": "gamma", "cv": 4.0} if more.pop("bursty", False) else {})}
    return {"organisations": organisation, "arrivals": arrivals, "lengths": LENGTHS, **more}


def _uniform(capacity: float) -> list[Phase]:
    each = 0.5 * capacity / len(LIGHT)
    return [phase("uniform", *(_stream(one, each) for one in LIGHT))]


def overload(capacity: float) -> list[Phase]:
    """A fair share is a fifth of what can be done; the light ones ask for half of that."""
    light = [_stream(one, 0.1 * capacity) for one in LIGHT]
    heavy = [_stream(one, 0.6 * capacity, bursty=True) for one in HEAVY]
    return [phase("overload", *light, *heavy)]


def _alone(capacity: float) -> list[Phase]:
    return [phase("alone", *(_stream(one, 0.1 * capacity) for one in LIGHT))]


def _flood(capacity: float) -> list[Phase]:
    light = [_stream(one, 0.1 * capacity) for one in LIGHT]
    flood = {"organisations": NOISY[0], "kind": "document", "arrivals": {"rate": FLOOD_RATE}, "lengths": FLOOD}
    return [phase("flood", *light, flood)]


def _mixed(capacity: float) -> list[Phase]:
    """Chats, and somebody who reads documents: below the capacity, yet long prompts come between short answers."""
    chats = [_stream(one, 0.1 * capacity) for one in LIGHT]
    document = {"organisations": HEAVY[0], "kind": "document", "arrivals": {"rate": 0.15}, "lengths": DOCUMENT}
    return [phase("mixed", *chats, document)]


LOADS = (
    Load("uniform", _uniform),
    Load("mixed", _mixed),
    Load("overload", overload),
    Load("alone", _alone),
    Load("flood", _flood),
)


def measure(options: argparse.Namespace) -> Report:
    rounds = options.rounds or ROUNDS
    with home(CODE) as at:
        folder = options.reports / "goodput"
        shutil.rmtree(folder, ignore_errors=True)
        capacity, promise = yardstick(at, folder)
        at.promise(promise)
        seen = _seen(at, folder, capacity, rounds)
    about = (
        f"{SECONDS:g} s of each load, {rounds} rounds, against tuned stock vLLM with {' '.join(CAPS)}; uncapped it "
        f"does {capacity:.2f} requests/s in a closed loop of {CLIENTS}, and at half of that it keeps the promise of "
        f"{promise.first_token_s:g} s to the first token and {1000 * promise.inter_token_s:.0f} ms a token."
    )
    return Report("goodput", about, tuple(Figures(seen, capacity, promise).numbers()))


def _seen(at: Home, folder: Path, capacity: float, rounds: int) -> dict[tuple[str, str], list[list[Record]]]:
    """By side and load, what came of each round."""
    seen: dict[tuple[str, str], list[list[Record]]] = {}
    with _both(at) as sides:
        for number in range(rounds):
            for load in LOADS:
                for side in sides[:: 1 if number % 2 else -1]:
                    place = folder / f"{number}-{load.name}-{side.name}"
                    records = side.run(place, load.phases(capacity), seed=number + 1)
                    seen.setdefault((side.name, load.name), []).append(records)
    return seen


@dataclass(frozen=True, slots=True)
class Figures:
    """What the runs of both sides come to."""

    seen: Mapping[tuple[str, str], Sequence[list[Record]]]
    capacity: float
    promise: Slo

    def numbers(self) -> Iterator[Number]:
        good = _rate(self.good)
        of_capacity = tuple(one / self.capacity for one in self.each("ours", "overload", good))
        yield Number("overload: goodput", "× stock's capacity", of_capacity, 0.5, "higher")
        yield Number("overload: goodput", "× stock's, capped", self.ratio("overload", good), 1.2, "higher")
        light = self.each("ours", "overload", self.light)
        yield Number("overload: light organisations served as promised", "share", light, 0.95, "higher")
        refused = self.each("ours", "overload", _refused_ms)
        yield Number("overload: refusals answered, p95", "ms", refused, 50)
        capped = tuple(one / self.capacity for one in self.each("stock", "overload", good))
        yield Number("overload: stock's goodput", "× its capacity", capped)
        yield Number("overload: stock's light organisations", "share", self.each("stock", "overload", self.light))
        flooded = self.each("ours", "flood", self.light)
        yield Number("flood: light organisations served as promised", "share", flooded, 0.95, "higher")
        alone = self.each("ours", "alone", lambda records: _first_token(_of(records, LIGHT), 0.95))
        beside = self.each("ours", "flood", lambda records: _first_token(_of(records, LIGHT), 0.95))
        isolation = tuple(a / max(b, 1e-9) for a, b in zip(beside, alone, strict=True))
        yield Number("flood: light organisations' first token p95", "× alone", isolation, 1.5)
        tokens = _rate(_tokens)
        yield Number("flood: tokens in and out", "× stock", self.ratio("flood", tokens), 0.95, "higher")
        yield Number("flood: stock's light organisations", "share", self.each("stock", "flood", self.light))
        yield Number("mixed prompts: inter-token p95", "× stock", self.ratio("mixed", _gap(0.95)), 0.7)
        yield Number("mixed prompts: inter-token p99", "× stock", self.ratio("mixed", _gap(0.99)), 0.7)
        yield Number("mixed prompts: tokens in and out", "× stock", self.ratio("mixed", tokens), 0.98, "higher")
        yield Number("half load: tokens in and out", "× stock", self.ratio("uniform", tokens), 0.98, "higher")
        first = self.ratio("uniform", lambda records: _first_token(records, 0.5))
        yield Number("half load: first token p50", "× stock", first, 1.05)
        yield Number("half load: served as promised", "share", self.each("ours", "uniform", self.share))
        yield Number("half load: stock served as promised", "share", self.each("stock", "uniform", self.share))

    def each(self, side: str, load: str, figure: Callable[[list[Record]], float]) -> tuple[float, ...]:
        return tuple(figure(records) for records in self.seen[side, load])

    def ratio(self, load: str, figure: Callable[[list[Record]], float]) -> tuple[float, ...]:
        pairs = zip(self.each("ours", load, figure), self.each("stock", load, figure), strict=True)
        return tuple(ours / max(theirs, 1e-9) for ours, theirs in pairs)

    def good(self, record: Record) -> float:
        """1 for a request that was served as promised."""
        if record.outcome is not Outcome.FINISHED or record.first_token_s is None:
            return 0.0
        gap = record.inter_token_s or 0.0
        return float(record.first_token_s <= self.promise.first_token_s and gap <= self.promise.inter_token_s)

    def share(self, records: Sequence[Record]) -> float:
        return sum(map(self.good, records)) / max(1, len(records))

    def light(self, records: Sequence[Record]) -> float:
        return self.share(_of(records, LIGHT))


def _tokens(record: Record) -> float:
    return record.prompt_tokens + record.output_tokens if record.ended <= SECONDS else 0.0


def _rate(of: Callable[[Record], float]) -> Callable[[list[Record]], float]:
    return lambda records: sum(map(of, records)) / SECONDS


def _of(records: Iterable[Record], organisations: Sequence[str]) -> list[Record]:
    return [record for record in records if record.organisation in organisations]


def _first_token(records: Iterable[Record], share: float) -> float:
    return _quantile([record.first_token_s for record in records if record.first_token_s is not None], share)


def _gap(share: float) -> Callable[[list[Record]], float]:
    """A quantile over all tokens but the first."""
    return lambda records: _quantile(
        [gap / tokens for record in records for gap, tokens in record.gaps for _ in range(tokens)], share
    )


def _refused_ms(records: Iterable[Record]) -> float:
    return 1000 * _quantile([one.end_to_end_s for one in records if one.outcome is Outcome.REFUSED], 0.95)


def _quantile(values: Sequence[float], share: float) -> float:
    """0 where there is none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def yardstick(at: Home, folder: Path) -> tuple[float, Slo]:
    """Requests a second of stock without caps; what it keeps at half of that."""
    model = _model(at)
    with stock(model, *EAGER) as server:
        side = Side("stock", f"http://{HOST}:{server.port}/v1", str(model))
        capacity = capacity_of(side, folder)
        half = side.run(folder / "promise", _uniform(capacity), seed=1)
    kept = _quantile([one.inter_token_s for one in half if one.inter_token_s is not None], KEPT)
    # The first token's promise is kept by everybody at half load; it stays what the shipped countries promise.
    return capacity, Slo(inter_token_s=round(max(Slo().inter_token_s, COARSE_S * math.ceil(kept / COARSE_S)), 3))


def capacity_of(side: Side, folder: Path) -> float:
    """Requests a second, from the middle of a closed loop."""
    closed = {"organisations": LIGHT[0], "arrivals": {"users": CLIENTS}, "lengths": LENGTHS}
    seconds = 40.0
    records = side.run(folder / "capacity", [phase("closed", closed, seconds=seconds)], seed=1)
    served = [one for one in records if one.outcome is Outcome.FINISHED and seconds / 4 <= one.ended <= seconds]
    return len(served) / (0.75 * seconds)


def ours(at: Home) -> Side:
    """Ours, brought up, with an organisation and a key for everybody who asks."""
    (up,) = bring_up(at)
    keys = {}
    for name in (*LIGHT, *HEAVY, *NOISY):
        at.domicile("org", "create", CODE, name, "--plan", "standard")
        keys[name] = json.loads(at.domicile("key", "create", CODE, "--org", name, "--json"))["key"]
    return Side("ours", f"{up.address}/v1", up.model, keys)


def _model(at: Home) -> Path:
    (country,) = Registry.load(at.countries).select([CODE])
    return Path(weights(country.models[0].source, at.settings.models))


@contextmanager
def _both(at: Home) -> Iterator[tuple[Side, Side]]:
    """Ours and stock, each of which is stopped while the other is asked."""
    own = ours(at)
    model = _model(at)
    with stock(model, *EAGER, *CAPS) as server:
        alone = Side("stock", f"http://{HOST}:{server.port}/v1", str(model), others=at.processes)
        yield replace(own, others=lambda: tree(server.pid)), alone
