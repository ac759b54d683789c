"""The history checker: silent over a run in which all went well, never silent over one in which something did not."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.judging.history import CAPACITY, Rule, Violation, check, compare_answers
from loadtests.record import OURS, Arrival, Event, Kind, Outcome, Record, Run, Sample
from loadtests.scenario import Scenario
from loadtests.schedule import make
from loadtests.targets import Targets

SCENARIO = Scenario.model_validate(
    {
        "name": "checked",
        "title": "Something to check",
        "countries": ["ee", "kr"],
        "organisations": [{"id": "acme", "count": 3}],
        "phases": [
            {
                "name": "all",
                "duration_s": 10.0,
                "traffic": [{"organisations": "acme", "arrivals": {"rate": 3.0}}],
            }
        ],
    }
)
TARGETS = Targets.model_validate(
    {
        "sides": [
            {
                "name": OURS,
                "countries": [
                    {
                        "code": code,
                        "base_url": f"http://127.0.0.1:{port}",
                        "model": "m",
                        "organisations": [{"id": f"acme-{number}", "key": "k"} for number in (1, 2, 3)],
                    }
                    for code, port in (("ee", 1), ("kr", 2))
                ],
            }
        ]
    }
)
OUTCOMES = (Outcome.FINISHED,) * 6 + (Outcome.REFUSED, Outcome.FAILED, Outcome.ABORTED)


def record(arrival: Arrival, draws: random.Random) -> Record:
    """What may become of an arrival."""
    outcome = draws.choice(OUTCOMES)
    finished = outcome is Outcome.FINISHED
    tokens = arrival.output_tokens if finished else 0
    first, gaps = (arrival.at + 0.1, _gaps(tokens - 1, draws)) if finished else (None, ())
    return Record(
        serial=arrival.serial,
        phase=arrival.phase,
        side=arrival.side,
        country=arrival.country,
        organisation=arrival.organisation,
        service_class="standard",
        kind=arrival.kind,
        intended=arrival.at,
        sent=arrival.at,
        first=first,
        ended=arrival.at + 1,
        outcome=outcome,
        status={Outcome.FINISHED: 200, Outcome.REFUSED: 429, Outcome.FAILED: 200, Outcome.ABORTED: 0}[outcome],
        code="" if finished else "x",
        retry_after_s=None,
        prompt_tokens=arrival.prompt_tokens,
        cached_tokens=0,
        output_tokens=tokens,
        finish_reason="length" if finished else "",
        gaps=gaps,
        terminals=0 if outcome is Outcome.ABORTED else 1,
        said_country="" if outcome is Outcome.ABORTED else arrival.country,
        request_id="req",
        asked_tokens=arrival.output_tokens,
        first_tokens=tokens - sum(count for _, count in gaps),
        events=len(gaps) + finished,
        text_digest=f"{arrival.serial:x}" if finished else "",
    )


def _gaps(tokens: int, draws: random.Random) -> tuple[tuple[float, int], ...]:
    """So many tokens, in arrivals of one to three."""
    gaps = []
    while tokens > 0:
        gaps.append((0.02, min(tokens, draws.randint(1, 3))))
        tokens -= gaps[-1][1]
    return tuple(gaps)


def run(seed: int) -> Run:
    draws = random.Random(seed)
    arrivals = make(SCENARIO, TARGETS, seed, {}).arrivals
    records = tuple(record(arrival, draws) for arrival in arrivals)
    plan: Mapping[str, Any] = {
        "scenario": SCENARIO.model_dump(mode="json"),
        "targets": TARGETS.without_keys(),
        "seed": seed,
        "capacity": {},
    }
    samples = [Sample(at, "machine", {"cpu": 0.5}) for at in (1.0, 20.0)]
    for at, busy in ((5.0, 3), (20.0, 0)):
        samples.append(Sample(at, "generator", {"in_flight": busy, "sent": len(records)}))
        counted = {"running": busy, "waiting": busy, "outstanding_tokens": 100 * busy}
        samples += [Sample(at, f"replica:{code}:0", counted) for code in ("ee", "kr")]
    return Run(Path("nowhere"), plan, records, tuple(samples), ())


Mutation = Callable[[Run, random.Random], Run]


def _one(found: Run, draws: random.Random, change: Callable[[Record], Record]) -> Run:
    """Another history, in which one finished request went otherwise."""
    finished = [at for at, one in enumerate(found.records) if one.outcome is Outcome.FINISHED and one.gaps]
    at = draws.choice(finished)
    return replace(found, records=(*found.records[:at], change(found.records[at]), *found.records[at + 1 :]))


def drop_a_record(found: Run, draws: random.Random) -> Run:
    at = draws.randrange(len(found.records))
    return replace(found, records=found.records[:at] + found.records[at + 1 :])


def drop_a_later_turn(found: Run, draws: random.Random) -> Run:
    """Of which the schedule knows nothing, but the generator does."""
    samples = [
        replace(sample, values={**sample.values, "sent": len(found.records) + 1})
        if sample.source == "generator"
        else sample
        for sample in found.samples
    ]
    return replace(found, samples=tuple(samples))


def double_a_record(found: Run, draws: random.Random) -> Run:
    return replace(found, records=(*found.records, draws.choice(found.records)))


def double_a_terminal(found: Run, draws: random.Random) -> Run:
    return _one(found, draws, lambda one: replace(one, terminals=2))


def never_end(found: Run, draws: random.Random) -> Run:
    return _one(found, draws, lambda one: replace(one, terminals=0))


def change_the_country(found: Run, draws: random.Random) -> Run:
    return _one(found, draws, lambda one: replace(one, said_country="kr" if one.country == "ee" else "ee"))


def send_it_abroad(found: Run, draws: random.Random) -> Run:
    def abroad(one: Record) -> Record:
        other = "kr" if one.country == "ee" else "ee"
        return replace(one, country=other, said_country=other)

    return _one(found, draws, abroad)


def hide_the_country(found: Run, draws: random.Random) -> Run:
    return _one(found, draws, lambda one: replace(one, said_country=""))


def serve_a_foreign_key(found: Run, draws: random.Random) -> Run:
    return _one(found, draws, lambda one: replace(one, kind=Kind.FOREIGN))


def lose_a_token_on_the_way(found: Run, draws: random.Random) -> Run:
    def lost(one: Record) -> Record:
        (gap, count), *rest = one.gaps
        return replace(one, gaps=((gap, count - 1), *rest))

    return _one(found, draws, lost)


def lose_a_token_before_it_is_counted(found: Run, draws: random.Random) -> Run:
    return _one(found, draws, lambda one: replace(_shorter(one), output_tokens=one.output_tokens - 1))


def _shorter(one: Record) -> Record:
    *rest, (gap, count) = one.gaps
    return replace(one, gaps=(*rest, (gap, count - 1)))


def double_a_token(found: Run, draws: random.Random) -> Run:
    return _one(found, draws, lambda one: replace(one, gaps=(*one.gaps, (0.02, 1))))


def double_a_token_that_was_spread(found: Run, draws: random.Random) -> Run:
    """Where the generator made its counts add up to what the service said."""
    return _one(found, draws, lambda one: replace(one, events=one.output_tokens + 1))


def answer_longer_than_asked(found: Run, draws: random.Random) -> Run:
    def longer(one: Record) -> Record:
        return replace(one, gaps=(*one.gaps, (0.02, 1)), output_tokens=one.output_tokens + 1)

    return _one(found, draws, longer)


def refuse_too_late(found: Run, draws: random.Random) -> Run:
    return _one(found, draws, lambda one: replace(one, outcome=Outcome.REFUSED, status=429))


def leave_a_counter(found: Run, draws: random.Random) -> Run:
    at = draws.choice([at for at, sample in enumerate(found.samples) if sample.source != "machine" and sample.at == 20])
    sample = found.samples[at]
    name = draws.choice(sorted(set(sample.values) - {"sent"}))
    left = replace(sample, values={**sample.values, name: draws.randint(1, 9)})
    return replace(found, samples=(*found.samples[:at], left, *found.samples[at + 1 :]))


MUTATIONS: dict[Mutation, Rule] = {
    drop_a_record: Rule.ACCOUNTED,
    drop_a_later_turn: Rule.ACCOUNTED,
    double_a_record: Rule.ACCOUNTED,
    double_a_terminal: Rule.ONE_END,
    never_end: Rule.ONE_END,
    refuse_too_late: Rule.ONE_END,
    change_the_country: Rule.RESIDENCY,
    hide_the_country: Rule.RESIDENCY,
    serve_a_foreign_key: Rule.RESIDENCY,
    send_it_abroad: Rule.ACCOUNTED,
    lose_a_token_on_the_way: Rule.TOKENS,
    lose_a_token_before_it_is_counted: Rule.TOKENS,
    double_a_token: Rule.TOKENS,
    double_a_token_that_was_spread: Rule.TOKENS,
    answer_longer_than_asked: Rule.TOKENS,
    leave_a_counter: Rule.COUNTERS,
}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_a_good_history_has_no_violation(seed: int) -> None:
    assert check(run(seed)) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.__name__)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_whatever_went_wrong_is_found(mutation: Mutation, seed: int) -> None:
    found = check(mutation(run(seed), random.Random(seed)))
    assert MUTATIONS[mutation] in {one.rule for one in found}
    assert len(found) <= 2, "and little else"


def test_a_violation_says_whose_it_is() -> None:
    good = run(1)
    (violation,) = check(double_a_terminal(good, random.Random(1)))
    assert violation.serial in {one.serial for one in good.records}
    assert violation.side == OURS
    assert violation.what == "ended 2 times, finished as it is"


def test_what_was_planned_after_an_interruption_was_not_to_be_sent() -> None:
    good = run(2)
    kept = tuple(one for one in good.records if one.intended < 5)
    samples = tuple(replace(s, values={**s.values, "sent": len(kept)}) for s in good.samples if s.source == "generator")
    cut = replace(good, records=kept, samples=samples)
    assert {one.rule for one in check(cut)} == {Rule.ACCOUNTED}
    assert check(replace(cut, events=(Event(7.0, "interrupted", "SIGINT"),))) == []


def test_an_interrupted_run_is_not_blamed_for_what_was_still_running() -> None:
    good = run(2)
    left = replace(
        good, samples=tuple(one for one in good.samples if not one.source.startswith("replica") or one.at < 20)
    )
    assert {one.rule for one in check(left)} == {Rule.COUNTERS}
    assert check(replace(left, events=(Event(30.0, "interrupted", "SIGINT"),))) == []


def test_requests_that_measured_capacity_have_serials_of_their_own() -> None:
    good = run(3)
    assert check(replace(good, records=(*good.records, replace(good.records[0], phase=CAPACITY)))) == []


def test_who_counts_no_tokens_and_names_no_country_is_not_blamed_for_it() -> None:
    good = run(4)
    plan = {**good.plan, "targets": TARGETS.without_keys()}
    for country in plan["targets"]["sides"][0]["countries"]:
        country["residency"] = False
    silent = tuple(replace(one, output_tokens=0, said_country="") for one in good.records)
    assert check(replace(good, plan=plan, records=silent)) == []


def test_a_replica_that_was_killed_cannot_count_back_to_zero() -> None:
    good = run(5)
    samples = tuple(sample for sample in good.samples if not (sample.source == "replica:ee:0" and sample.at == 20))
    left = replace(good, samples=samples)
    assert {one.rule for one in check(left)} == {Rule.COUNTERS}
    kill = Event(6.0, "fault", "kill replica of ee", {"action": "kill", "country": "ee"})
    assert check(replace(left, events=(kill,))) == []
    elsewhere = replace(kill, facts={"action": "kill", "country": "kr"})
    assert check(replace(left, events=(elsewhere,)))


def test_two_runs_give_the_same_answers() -> None:
    calm = run(6)
    assert compare_answers(calm, calm) == []
    other = _one(calm, random.Random(6), lambda one: replace(one, text_digest="otherwise"))
    (violation,) = compare_answers(calm, other)
    assert isinstance(violation, Violation)
    assert violation.rule is Rule.SAME_ANSWER
