"""What must hold of every request of a run, whatever was killed, stopped or cut meanwhile.

Read from the run's folder alone, after the fact. Each rule is one function; none of them says anything about speed.
The idea of checking a recorded history against invariants, apart from what made it, is Jepsen's
(https://jepsen.io; Kingsbury, Elle, VLDB 2020).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from loadtests.record import OURS, Arrival, Event, Kind, Outcome, Record, Run, Sample
from loadtests.scenario import Scenario
from loadtests.schedule import make
from loadtests.targets import Targets

CAPACITY = "capacity"
"""The phase in which capacity is measured. A closed loop, with serials of its own."""
_INTERRUPTED = "interrupt"
_GENERATOR, _REPLICA = "generator", "replica:"
_COUNTERS = ("running", "waiting", "outstanding_tokens")
_ENDS_REPLICAS = frozenset({"kill", "terminate", "roll-out"})
_STALE_S = 5.0
"""A source that was silent for so long before the last sample is no longer there."""


class Rule(StrEnum):
    """What can be broken."""

    ONE_END = "one-end"
    """A request ends exactly once; one that the load test itself left may not have ended at all."""
    TOKENS = "tokens"
    """No token is lost or doubled."""
    RESIDENCY = "residency"
    """Nobody is served by another country's replicas."""
    ACCOUNTED = "accounted"
    """Sent = finished + refused + failed + aborted, and everything that was planned was sent."""
    COUNTERS = "counters"
    """At the end nothing is running, waiting or in flight, anywhere."""
    SAME_ANSWER = "same-answer"
    """The same question has the same greedy answer."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that must not be. ``serial`` is the request's, where it is about one."""

    rule: Rule
    what: str
    side: str = OURS
    serial: int | None = None


def check(run: Run) -> list[Violation]:
    """Every violation in a run's history, by rule; empty for a run in which all went as it must."""
    return [
        *_one_end(run.records),
        *_tokens(run.records),
        *_residency(run),
        *_unique(run.records),
        *_all_sent(run),
        *_all_recorded(run),
        *_counters(run),
    ]


def unsettled(run: Run) -> bool:
    """Whether something was in flight when everybody was last looked at, as may be just after the last answer."""
    return any(_counters(run))


def compare_answers(calm: Run, disturbed: Run) -> list[Violation]:
    """Greedy requests that two runs of one plan and seed both finished, and whose texts differ.

    Only for engines whose answers do not depend on what else is in the batch.
    """
    told = {(one.side, one.serial): one.text_digest for one in calm.records if _comparable(one)}
    return [
        Violation(Rule.SAME_ANSWER, "is answered otherwise than in the run it is compared with", one.side, one.serial)
        for one in disturbed.records
        if _comparable(one) and told.get((one.side, one.serial), one.text_digest) != one.text_digest
    ]


def _comparable(record: Record) -> bool:
    return record.outcome is Outcome.FINISHED and record.phase != CAPACITY and record.text_digest != ""


def _one_end(records: tuple[Record, ...]) -> Iterator[Violation]:
    for one in records:
        if one.terminals != 1 and not (one.outcome is Outcome.ABORTED and one.terminals == 0):
            yield _of(one, Rule.ONE_END, f"ended {one.terminals} times, {one.outcome} as it is")
        if one.outcome is Outcome.REFUSED and one.first is not None:
            yield _of(one, Rule.ONE_END, "was refused after its answer had begun")


def _tokens(records: tuple[Record, ...]) -> Iterator[Violation]:
    for one in records:
        if one.outcome is Outcome.FINISHED and (complaint := _miscounted(one)):
            yield _of(one, Rule.TOKENS, complaint)


def _miscounted(one: Record) -> str:
    """What is wrong with the tokens of a finished answer, or nothing. A service that counts none says nothing."""
    counted, later = one.output_tokens, sum(count for _, count in one.gaps)
    if not counted:
        return ""
    if one.asked_tokens and counted > one.asked_tokens:
        return f"has {counted} tokens of at most {one.asked_tokens}"
    if one.asked_tokens and one.finish_reason == "length" and counted != one.asked_tokens:
        return f"ended for its length with {counted} of {one.asked_tokens} tokens"
    if one.events > counted:
        return f"brought {one.events} events with text, and the service counts {counted} tokens"
    if one.first_tokens and one.first_tokens + later != counted:
        return f"brought {one.first_tokens + later} tokens, of which the service counts {counted}"
    if later >= counted:
        return f"brought {later} tokens after the first, where the service counts {counted} in all"
    return ""


def _residency(run: Run) -> Iterator[Violation]:
    resident = _resident(run.plan)
    for one in run.records:
        if one.kind is Kind.FOREIGN:
            if one.outcome is Outcome.FINISHED or one.output_tokens or one.first is not None:
                yield _of(one, Rule.RESIDENCY, f"was served in {one.country} with another country's key")
        elif one.status and (one.side, one.country) in resident and one.said_country != one.country:
            yield _of(one, Rule.RESIDENCY, f"of {one.country} was answered by {one.said_country or 'nobody says whom'}")


def _resident(plan: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """The sides' countries whose answers must say where they come from."""
    return frozenset(
        (side["name"], country["code"])
        for side in plan["targets"]["sides"]
        for country in side["countries"]
        if country.get("residency", True)
    )


def _unique(records: tuple[Record, ...]) -> Iterator[Violation]:
    seen = Counter((one.side, one.phase == CAPACITY, one.serial) for one in records)
    for (side, _, serial), count in seen.items():
        if count > 1:
            yield Violation(Rule.ACCOUNTED, f"is recorded {count} times", side, serial)


def _all_sent(run: Run) -> Iterator[Violation]:
    """Every planned arrival has its record, but for those that an interruption came before."""
    recorded = {(one.side, one.serial): one for one in run.records if one.phase != CAPACITY}
    until = _sends_until(run)
    for arrival in _planned(run.plan):
        found = recorded.get((arrival.side, arrival.serial))
        if found is None:
            if arrival.at < until:
                what = f"was planned at {arrival.at:.3f} s and never sent"
                yield Violation(Rule.ACCOUNTED, what, arrival.side, arrival.serial)
        elif (found.country, found.organisation) != (arrival.country, arrival.organisation):
            what = f"was planned for {arrival.organisation} of {arrival.country}, and sent for {found.organisation}"
            yield _of(found, Rule.ACCOUNTED, f"{what} of {found.country}")


def _sends_until(run: Run) -> float:
    """When the last was sent, in a run that was interrupted: it is noted only after everybody was told to stop."""
    if not _was_interrupted(run):
        return float("inf")
    return max((one.intended for one in run.records if one.phase != CAPACITY), default=0.0)


def _was_interrupted(run: Run) -> bool:
    return any(event.kind.startswith(_INTERRUPTED) for event in run.events)


def _planned(plan: Mapping[str, Any]) -> tuple[Arrival, ...]:
    """The arrivals, drawn again from what the plan keeps."""
    scenario = Scenario.model_validate_json(orjson.dumps(plan["scenario"]))
    targets = Targets.model_validate_json(orjson.dumps(plan["targets"]))
    return make(scenario, targets, plan["seed"], plan["capacity"]).arrivals


def _all_recorded(run: Run) -> Iterator[Violation]:
    """No generator says that it sent more than there are records of."""
    last = _last(run.samples).get(_GENERATOR)
    recorded = sum(one.phase != CAPACITY for one in run.records)
    if last is not None and last.values.get("sent", 0) > recorded:
        what = f"{last.values['sent']:.0f} requests were sent and {recorded} are accounted for"
        yield Violation(Rule.ACCOUNTED, what)


def _counters(run: Run) -> Iterator[Violation]:
    """Whoever interrupts a run does not wait until what was in flight has ended everywhere."""
    if _was_interrupted(run):
        return
    last = _last(run.samples)
    ended = run.samples[-1].at if run.samples else 0.0
    gone = _countries_that_lost_replicas(run.events)
    for source, sample in sorted(last.items()):
        if source == _GENERATOR:
            names: tuple[str, ...] = ("in_flight",)
        elif source.startswith(_REPLICA):
            if source.split(":")[1] in gone and ended - sample.at > _STALE_S:
                continue
            names = _COUNTERS
        else:
            continue
        for name in names:
            if left := sample.values.get(name, 0):
                yield Violation(Rule.COUNTERS, f"{source} ends with {name} at {left:g}")


def _last(samples: tuple[Sample, ...]) -> dict[str, Sample]:
    """By source. The order is the file's: a measurement of capacity before the run has times of its own."""
    return {sample.source: sample for sample in samples}


def _countries_that_lost_replicas(events: tuple[Event, ...]) -> frozenset[str]:
    """Where a source of samples may have ended with what it counted."""
    return frozenset(
        str(event.facts.get("country", ""))
        for event in events
        if event.kind == "fault" and event.facts.get("action") in _ENDS_REPLICAS
    )


def _of(record: Record, rule: Rule, what: str) -> Violation:
    return Violation(rule, what, record.side, record.serial)
