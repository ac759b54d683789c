"""Goodput and fairness on the open-loop generator, against tuned stock vLLM with admission caps of its own.

Three loads, each given to both sides in turn, with the same requests: half of the capacity, one and a half of it from
steady and bursty organisations, and three light organisations beside one that floods with long prompts. Capacity is
stock's, of 32 clients in a closed loop. A request is good when it was served as the country's tenant.yaml promises.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from loadtests.record import Outcome, Record, Run
from serving.engine.models import weights
from tenants.country import Slo
from tenants.registry import Registry
from tests.bench.country import CODE, HOST
from tests.bench.report import ROOT, CannotMeasure, Number, Report
from tests.bench.stock import EAGER, stock
from tests.bench.up import Home, bring_up, home

ROUNDS = 3
SECONDS = 60.0
CLIENTS = 32
LIMIT_S = 420.0
LENGTHS = {"trace": "azure-conversation", "prompt_scale": 0.05, "output_scale": 0.1}
FLOOD = {"prompt": 1200, "output": 16}
FLOOD_RATE = 2.0
"""Long prompts a second: about three times what two cores prefill of them."""
CAPS = ("--max-num-queued-reqs", "12")
"""Stock's own admission control, with which it had most goodput in overload of all that were tried here."""
LIGHT = tuple(f"light-{number}" for number in range(1, 4))
HEAVY = ("bursty-1", "bursty-2")
NOISY = ("noisy",)
PROMISE = Slo()


@dataclass(frozen=True, slots=True)
class Side:
    """Somebody who answers, and the keys to ask with."""

    name: str
    base_url: str
    model: str
    keys: Mapping[str, str] = field(default_factory=dict)

    def run(self, folder: Path, phases: Sequence[dict[str, object]], seed: int) -> list[Record]:
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
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if not (folder / "run" / "requests.jsonl").exists():
            raise CannotMeasure(f"{self.name}: {done.stderr[-1000:]}")
        last = str(phases[-1]["name"])
        return [record for record in Run.read(folder / "run").records if record.phase == last]


@dataclass(frozen=True, slots=True)
class Load:
    """One of the three."""

    name: str
    phases: Callable[[float], list[dict[str, object]]]
    """For a capacity in requests a second."""


def _phase(name: str, *traffic: Mapping[str, object], seconds: float = SECONDS) -> dict[str, object]:
    return {"name": name, "duration_s": seconds, "traffic": [dict(one) for one in traffic]}


def _stream(organisation: str, rate: float, **more: object) -> dict[str, object]:
    arrivals = {"rate": rate, **({"process": "gamma", "cv": 4.0} if more.pop("bursty", False) else {})}
    return {"organisations": organisation, "arrivals": arrivals, "lengths": LENGTHS, **more}


def _uniform(capacity: float) -> list[dict[str, object]]:
    each = 0.5 * capacity / len(LIGHT)
    return [_phase("uniform", *(_stream(one, each) for one in LIGHT))]


def _overload(capacity: float) -> list[dict[str, object]]:
    """A fair share is a fifth of what can be done; the light ones ask for half of that."""
    light = [_stream(one, 0.1 * capacity) for one in LIGHT]
    heavy = [_stream(one, 0.6 * capacity, bursty=True) for one in HEAVY]
    return [_phase("overload", *light, *heavy)]


def _alone(capacity: float) -> list[dict[str, object]]:
    return [_phase("alone", *(_stream(one, 0.1 * capacity) for one in LIGHT))]


def _flood(capacity: float) -> list[dict[str, object]]:
    light = [_stream(one, 0.1 * capacity) for one in LIGHT]
    flood = {"organisations": NOISY[0], "kind": "document", "arrivals": {"rate": FLOOD_RATE}, "lengths": FLOOD}
    return [_phase("flood", *light, flood)]


LOADS = (Load("uniform", _uniform), Load("overload", _overload), Load("alone", _alone), Load("flood", _flood))


def measure(options: argparse.Namespace) -> Report:
    rounds = options.rounds or ROUNDS
    with home(CODE) as at:
        folder = at.path / "runs"
        capacity = _capacity(at, folder / "capacity")
        seen = _seen(at, folder, capacity, rounds)
    about = (
        f"{SECONDS:g} s of each load, {rounds} rounds, against tuned stock vLLM with {' '.join(CAPS)}; it does "
        f"{capacity:.2f} requests/s in a closed loop of {CLIENTS}."
    )
    return Report("goodput", about, tuple(_numbers(seen, "ours", "stock", capacity)))


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


def _numbers(
    seen: Mapping[tuple[str, str], Sequence[list[Record]]], ours: str, best: str, capacity: float
) -> Iterator[Number]:
    def each(side: str, load: str, figure: Callable[[list[Record]], float]) -> tuple[float, ...]:
        return tuple(figure(records) for records in seen[side, load])

    def ratio(load: str, figure: Callable[[list[Record]], float]) -> tuple[float, ...]:
        return tuple(a / max(b, 1e-9) for a, b in zip(each(ours, load, figure), each(best, load, figure), strict=True))

    good_rate = _rate(good)
    of_capacity = tuple(one / capacity for one in each(ours, "overload", good_rate))
    yield Number("overload: goodput", "× stock's capacity", of_capacity, 0.5, "higher")
    yield Number("overload: goodput", "× stock's, capped", ratio("overload", good_rate), 1.2, "higher")
    light = each(ours, "overload", lambda records: _share(_of(records, LIGHT)))
    yield Number("overload: light organisations served as promised", "share", light, 0.95, "higher")
    yield Number("overload: refusals answered, p95", "ms", each(ours, "overload", _refused_ms), 50)
    yield Number(
        "overload: stock's goodput",
        "× its capacity",
        tuple(one / capacity for one in each(best, "overload", good_rate)),
    )
    yield Number(
        "overload: stock's light organisations",
        "share",
        each(best, "overload", lambda records: _share(_of(records, LIGHT))),
    )
    flooded = each(ours, "flood", lambda records: _share(_of(records, LIGHT)))
    yield Number("flood: light organisations served as promised", "share", flooded, 0.95, "higher")
    alone = each(ours, "alone", lambda records: _first_token(_of(records, LIGHT), 0.95))
    beside = each(ours, "flood", lambda records: _first_token(_of(records, LIGHT), 0.95))
    isolation = tuple(a / b for a, b in zip(beside, alone, strict=True))
    yield Number("flood: light organisations' first token p95", "× alone", isolation, 1.5)
    yield Number("flood: tokens in and out", "× stock", ratio("flood", _rate(_tokens)), 0.95, "higher")
    theirs = each(best, "flood", lambda records: _share(_of(records, LIGHT)))
    yield Number("flood: stock's light organisations", "share", theirs)
    yield Number("half load: inter-token p95", "× stock", ratio("uniform", _gap_p95), 0.7)
    yield Number("half load: tokens in and out", "× stock", ratio("uniform", _rate(_tokens)), 0.98, "higher")
    first = ratio("uniform", lambda records: _first_token(records, 0.5))
    yield Number("half load: first token p50", "× stock", first, 1.05)
    yield Number("half load: served as promised", "share", each(ours, "uniform", _share))
    yield Number("half load: stock served as promised", "share", each(best, "uniform", _share))


def good(record: Record) -> float:
    """1 for a request that was served as promised."""
    if record.outcome is not Outcome.FINISHED or record.first_token_s is None:
        return 0.0
    gap = record.inter_token_s or 0.0
    return float(record.first_token_s <= PROMISE.first_token_s and gap <= PROMISE.inter_token_s)


def _tokens(record: Record) -> float:
    return record.prompt_tokens + record.output_tokens if record.ended <= SECONDS else 0.0


def _rate(of: Callable[[Record], float]) -> Callable[[list[Record]], float]:
    return lambda records: sum(map(of, records)) / SECONDS


def _of(records: Iterable[Record], organisations: Sequence[str]) -> list[Record]:
    return [record for record in records if record.organisation in organisations]


def _share(records: Sequence[Record]) -> float:
    return sum(map(good, records)) / max(1, len(records))


def _first_token(records: Iterable[Record], share: float) -> float:
    return _quantile([record.first_token_s for record in records if record.first_token_s is not None], share)


def _gap_p95(records: Iterable[Record]) -> float:
    return _quantile([gap / tokens for record in records for gap, tokens in record.gaps for _ in range(tokens)], 0.95)


def _refused_ms(records: Iterable[Record]) -> float:
    return 1000 * _quantile([one.end_to_end_s for one in records if one.outcome is Outcome.REFUSED], 0.95)


def _quantile(values: Sequence[float], share: float) -> float:
    """0 where there is none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def _capacity(at: Home, folder: Path) -> float:
    """Requests a second of stock without caps, from the middle of a closed loop."""
    closed = {"organisations": LIGHT[0], "arrivals": {"users": CLIENTS}, "lengths": LENGTHS}
    seconds = 40.0
    model = _model(at)
    with stock(model, *EAGER) as server:
        side = Side("stock", f"http://{HOST}:{server.port}/v1", str(model))
        records = side.run(folder, [_phase("closed", closed, seconds=seconds)], seed=1)
    served = [one for one in records if one.outcome is Outcome.FINISHED and seconds / 4 <= one.ended <= seconds]
    return len(served) / (0.75 * seconds)


def _model(at: Home) -> Path:
    (country,) = Registry.load(at.countries).select([CODE])
    return Path(weights(country.models[0].source, at.settings.models))


@contextmanager
def _both(at: Home) -> Iterator[tuple[Side, Side]]:
    """Ours, with an organisation and a key for everybody who asks, and stock."""
    (up,) = bring_up(at)
    keys = {}
    for name in (*LIGHT, *HEAVY, *NOISY):
        at.domicile("org", "create", CODE, name, "--plan", "standard")
        keys[name] = json.loads(at.domicile("key", "create", CODE, "--org", name, "--json"))["key"]
    model = _model(at)
    with stock(model, *EAGER, *CAPS) as server:
        theirs = Side("stock", f"http://{HOST}:{server.port}/v1", str(model))
        yield Side("ours", f"{up.address}/v1", up.model, keys), theirs
