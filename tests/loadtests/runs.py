"""Runs that nobody ran: plans, requests, samples and events drawn from a seed, for tests of what is made of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from loadtests.record import (
    EVENTS,
    OURS,
    PLAN,
    REQUESTS,
    SAMPLES,
    Arrival,
    Event,
    Kind,
    Outcome,
    Record,
    Run,
    Sample,
)
from loadtests.scenario import Scenario
from loadtests.targets import Targets

SPREAD = 0.3
"""Standard deviation of the logarithm of a latency that is given as a number."""

Latency = float | Callable[[Arrival, random.Random], float]
"""Seconds: a median that log-normal draws are made around, or whatever a function says."""
Change = Callable[[Record], Record | None]
"""The record to have instead; ``None`` leaves it out."""

_ANSWERS = {
    Outcome.FINISHED: (200, ""),
    Outcome.REFUSED: (429, "rate_limit_exceeded"),
    Outcome.FAILED: (500, "internal_error"),
    Outcome.ABORTED: (200, "left"),
}


@dataclass(frozen=True)
class Stretch:
    """A phase. What is ``None`` is as for the whole run."""

    name: str = "steady"
    duration_s: float = 60.0
    judged: bool = True
    rate: float | None = None
    first_token: Latency | None = None
    inter_token: Latency | None = None
    organisations: Sequence[str] | None = None
    outcomes: Mapping[Outcome, float] | None = None


@dataclass(frozen=True)
class Made:
    """Everything that :func:`make_run` can be told; the names are its parameters."""

    folder: Path = Path("run")
    phases: Sequence[Stretch] = (Stretch(),)
    countries: Sequence[str] = ("ee",)
    sides: Sequence[str] = (OURS,)
    organisations: Sequence[str] = ("acme-1", "acme-2", "acme-3")
    classes: Mapping[str, str] = field(default_factory=dict)
    """Service classes of organisations; ``standard`` where none is named."""
    weights: Mapping[str, float] = field(default_factory=dict)
    rate: float = 5.0
    """Requests a second and country: Poisson arrivals, divided evenly among the organisations."""
    first_token: Latency = 0.3
    inter_token: Latency = 0.05
    output_tokens: int = 20
    prompt_tokens: int = 100
    kind: Kind = Kind.CHAT
    outcomes: Mapping[Outcome, float] = field(default_factory=lambda: {Outcome.FINISHED: 1.0})
    """Shares; they sum to one."""
    lag: Latency = 0.0005
    slo: Mapping[str, Any] = field(default_factory=dict)
    expect: Mapping[str, Any] = field(default_factory=dict)
    residency: bool = True
    slice_s: float = 15.0
    seed: int = 1
    change: Change | None = None
    samples: Iterable[Sample] = ()
    """More of them: the generator's and the machine's, once a second, are there already."""
    events: Iterable[Event] = ()


def make_run(**told: Any) -> Run:
    """A run as its folder would be read. The parameters are the fields of :class:`Made`.

    Times are exact and the same for the same arguments. Each side of a run with two of them has its own slices.
    """
    made = Made(**told)
    spans = tuple(_spans(made))
    records = sorted(_records(made, spans), key=lambda record: record.ended)
    ends = spans[-1]["end"] if spans else 0.0
    phases = (Event(one["begin"], "phase", one["name"], {"side": one["side"]}) for one in spans)
    return Run(
        folder=made.folder,
        plan=_plan(made, spans, ends),
        records=tuple(records),
        samples=tuple(sorted([*_samples(ends), *made.samples], key=lambda sample: sample.at)),
        events=tuple(sorted([*phases, *made.events], key=lambda event: event.at)),
    )


def write_run(run: Run, folder: Path) -> Run:
    """Put it on disk, as the load generator would have, and read it again."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PLAN).write_bytes(orjson.dumps(run.plan))
    (folder / REQUESTS).write_bytes(b"".join(one.to_json() + b"\n" for one in run.records))
    (folder / SAMPLES).write_bytes(b"".join(orjson.dumps(asdict(one)) + b"\n" for one in run.samples))
    (folder / EVENTS).write_bytes(b"".join(orjson.dumps(asdict(one)) + b"\n" for one in run.events))
    return Run.read(folder)


def foreign(record: Record) -> Record:
    """The same request with another country's key, refused as it has to be."""
    return replace(
        record,
        kind=Kind.FOREIGN,
        outcome=Outcome.REFUSED,
        status=401,
        code="incorrect_hostname",
        first=None,
        ended=record.intended + 0.004,
        gaps=(),
        output_tokens=0,
        finish_reason="",
    )


def _spans(made: Made) -> Iterator[dict[str, Any]]:
    at = 0.0
    for phase in made.phases:
        slices = math.ceil(phase.duration_s / made.slice_s) if len(made.sides) > 1 else 1
        for _ in range(slices):
            for side in made.sides:
                length = phase.duration_s / slices
                yield {"name": phase.name, "side": side, "begin": at, "end": at + length, "judged": phase.judged}
                at += length


def _records(made: Made, spans: Iterable[Mapping[str, Any]]) -> Iterator[Record]:
    phases = {phase.name: phase for phase in made.phases}
    serials = count(1)
    for span in spans:
        phase = phases[span["name"]]
        for country in made.countries:
            rng = random.Random(f"{made.seed} {span['begin']} {country}")
            at = span["begin"]
            while (at := at + rng.expovariate(phase.rate or made.rate)) < span["end"]:
                organisation = rng.choice(phase.organisations or made.organisations)
                arrival = Arrival(
                    next(serials), at, phase.name, span["side"], country, organisation, made.kind,
                    made.prompt_tokens, made.output_tokens,
                )  # fmt: skip
                record = _record(made, phase, arrival, rng)
                changed = made.change(record) if made.change else record
                if changed is not None:
                    yield changed


def _record(made: Made, phase: Stretch, arrival: Arrival, rng: random.Random) -> Record:
    shares = phase.outcomes or made.outcomes
    outcome = rng.choices(list(shares), list(shares.values()))[0]
    first_token = _seconds(made.first_token if phase.first_token is None else phase.first_token, arrival, rng)
    inter_token = _seconds(made.inter_token if phase.inter_token is None else phase.inter_token, arrival, rng)
    lag = _seconds(made.lag, arrival, rng)
    tokens = made.output_tokens if outcome is Outcome.FINISHED else made.output_tokens // 2
    status, code = _ANSWERS[outcome]
    silent = outcome is Outcome.REFUSED
    plain = made.kind is Kind.CHAT_PLAIN
    first = arrival.at + first_token
    ended = arrival.at + 0.005 if silent else first + inter_token * (tokens - 1)
    return Record(
        serial=arrival.serial,
        phase=arrival.phase,
        side=arrival.side,
        country=arrival.country,
        organisation=arrival.organisation,
        service_class=made.classes.get(arrival.organisation, "standard"),
        kind=made.kind,
        intended=arrival.at,
        sent=arrival.at + lag,
        first=None if silent else ended if plain else first,
        ended=ended,
        outcome=outcome,
        status=status,
        code=code,
        retry_after_s=1.0 if silent else None,
        prompt_tokens=arrival.prompt_tokens,
        cached_tokens=0,
        output_tokens=0 if silent else tokens,
        finish_reason="length" if outcome is Outcome.FINISHED else "",
        gaps=() if silent or plain else ((inter_token, 1),) * (tokens - 1),
        terminals=1,
        said_country=arrival.country if made.residency else "",
        request_id=f"req-{arrival.serial}",
        asked_tokens=arrival.output_tokens,
        first_tokens=0 if silent else 1,
    )


def _seconds(latency: Latency, arrival: Arrival, rng: random.Random) -> float:
    if callable(latency):
        return latency(arrival, rng)
    return latency * math.exp(rng.gauss(0.0, SPREAD))


def _samples(ends: float) -> Iterator[Sample]:
    for second in range(1, int(ends) + 1):
        lag = {"lag_p50_s": 0.0002, "lag_p99_s": 0.001, "in_flight": 3, "cpu": 0.2, "sent": 5 * second, "behind": 0}
        yield Sample(float(second), "generator", lag)
        yield Sample(float(second), "machine", {"cpu": 0.5, "memory_gib": 4.0})


def _plan(made: Made, spans: Sequence[Mapping[str, Any]], ends: float) -> dict[str, Any]:
    scenario = Scenario.model_validate(
        {
            "name": "made",
            "title": "A run that nobody ran",
            "countries": list(made.countries),
            "seed": made.seed,
            "organisations": [{"id": id} for id in _ids(made)],
            "phases": [{"name": one.name, "duration_s": one.duration_s, "judged": one.judged} for one in made.phases],
            "expect": dict(made.expect),
        }
    )
    return {
        "scenario": scenario.model_dump(mode="json"),
        "targets": Targets.model_validate({"sides": [_side(made, side) for side in made.sides]}).without_keys(),
        "seed": made.seed,
        "capacity": {},
        "phases": [dict(span) for span in spans],
        "began": "2026-01-01T00:00:00Z",
        "duration_s": ends,
        "machine": {"cpus": 2, "memory_gib": 24.0},
        "versions": {"python": "3.11"},
        "commit": "0" * 40,
    }


def _ids(made: Made) -> list[str]:
    """The scenario's organisations: without numbers, as it names them."""
    named = [id for phase in made.phases for id in (phase.organisations or made.organisations)]
    return list(dict.fromkeys(id.rstrip("0123456789").rstrip("-") for id in named))


def _side(made: Made, side: str) -> dict[str, Any]:
    named = dict.fromkeys(id for phase in made.phases for id in (phase.organisations or made.organisations))
    organisations = [
        {
            "id": id,
            "key": f"key-of-{id}",
            "service_class": made.classes.get(id, "standard"),
            "weight": made.weights.get(id, 1.0),
        }
        for id in named
    ]
    countries = [
        {
            "code": code,
            "base_url": f"http://127.0.0.1:{9000 + index}/v1",
            "model": "smollm2",
            "slo": dict(made.slo),
            "organisations": organisations,
            "residency": made.residency and side == OURS,
        }
        for index, code in enumerate(made.countries)
    ]
    return {"name": side, "countries": countries}
