"""What a verdict says of runs whose truth is known."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from loadtests import slo
from loadtests.agreement import simulate
from loadtests.judging import history
from loadtests.judging.checks import Check
from loadtests.record import OURS, Arrival, Event, Kind, Outcome, Record, Run, Sample
from loadtests.slo import Verdict, judge
from tests.loadtests.runs import Change, Stretch, foreign, make_run, write_run


def the(verdict: Verdict, name: str, country: str = "ee", service_class: str | None = None) -> Check:
    found = [
        check
        for check in verdict.checks
        if check.name == name and check.country == country and service_class in (None, check.service_class)
    ]
    assert len(found) == 1, [check.name for check in verdict.checks]
    return found[0]


def some(share: float, changed: Callable[[Record], Record]) -> Change:
    """Every so manyth request, changed."""
    every = round(1 / share)
    return lambda one: changed(one) if one.serial % every == 0 else one


def lost(one: Record) -> Record:
    return replace(one, outcome=Outcome.FAILED, status=0, code="lost-connection", first=None, gaps=(), output_tokens=0)


def test_a_service_that_keeps_its_promises() -> None:
    verdict = judge(make_run())
    assert verdict.exit_code == 0
    assert verdict.reasons == ()
    assert all(check.passed for check in verdict.checks)
    assert the(verdict, "goodput").value == 1.0


def test_a_service_that_does_not() -> None:
    verdict = judge(make_run(first_token=3.0))
    assert verdict.exit_code == 1
    assert the(verdict, "goodput").passed is False
    assert "asked for at least 95%" in the(verdict, "goodput").sentence


def test_slow_tokens_break_the_promise_too() -> None:
    assert the(judge(make_run(inter_token=0.5)), "goodput").passed is False


def test_refusing_everybody_fast_keeps_no_promise() -> None:
    refusing = {Outcome.FINISHED: 0.1, Outcome.REFUSED: 0.9}
    verdict = judge(make_run(outcomes=refusing))
    assert the(verdict, "goodput").passed is False
    assert the(verdict, "failures").passed is True


def test_who_leaves_is_not_held_against_the_service() -> None:
    verdict = judge(make_run(outcomes={Outcome.FINISHED: 0.7, Outcome.ABORTED: 0.3}))
    assert the(verdict, "goodput").value == 1.0


def test_a_service_that_hangs_is_not_excused_by_the_end_of_the_run() -> None:
    def hung(one: Record) -> Record:
        return replace(lost(one), outcome=Outcome.ABORTED, code="run-ended", ended=one.intended + 40)

    verdict = judge(make_run(change=some(0.25, hung), expect={"first_token_p99_s": 5.0}))
    assert the(verdict, "goodput").passed is False
    assert the(verdict, "first-token-p99").passed is False


def test_each_class_has_its_own_promise() -> None:
    promises = {"first_token_s": 0.2, "classes": {"batch": {"first_token_s": 60.0, "inter_token_s": 1.0}}}
    verdict = judge(make_run(classes={"acme-1": "batch"}, slo=promises, first_token=1.0))
    assert the(verdict, "goodput", "ee", "batch").passed is True
    assert the(verdict, "goodput", "ee", "standard").passed is False


def test_one_country_fails_without_the_other() -> None:
    def slow_in_korea(arrival: Arrival, rng: random.Random) -> float:
        return 5.0 if arrival.country == "kr" else 0.2

    verdict = judge(make_run(countries=("ee", "kr"), first_token=slow_in_korea))
    assert the(verdict, "goodput", "ee").passed is True
    assert the(verdict, "goodput", "kr").passed is False


def test_without_streaming_only_the_whole_answer_has_a_deadline() -> None:
    plain = {"kind": Kind.CHAT_PLAIN, "first_token": 10.0}
    assert the(judge(make_run(**plain)), "goodput").passed is True
    assert the(judge(make_run(**plain, slo={"request_s": 5.0})), "goodput").passed is False


def test_a_breach_within_chance_passes_and_says_so() -> None:
    def miss(one: Record) -> Record:
        return replace(one, outcome=Outcome.REFUSED, status=429, first=None, gaps=())

    verdict = judge(make_run(change=some(1 / 18, miss)))
    check = the(verdict, "goodput")
    assert check.value is not None
    assert check.interval is not None
    assert check.value < 0.95 < check.interval.high
    assert (check.passed, check.close) == (True, True)
    assert "by no more than chance does" in check.sentence


def test_twice_the_error_budget_is_a_breach_however_little_a_run_proves() -> None:
    """A queue that grows through the whole run: all its requests are alike, so that its interval excludes little."""

    def growing(arrival: Arrival, rng: random.Random) -> float:
        return 0.2 if arrival.at < 42 else 5.0

    check = the(judge(make_run(first_token=growing, rate=2.0)), "goodput")
    assert check.interval is not None
    assert check.interval.high > 0.9
    assert check.passed is False


def test_phases_that_are_not_judged_break_no_promise_but_may_not_fail() -> None:
    overload = Stretch("overload", judged=False, first_token=30.0)
    assert judge(make_run(phases=[Stretch(), overload])).exit_code == 0
    failing = Stretch("overload", judged=False, outcomes={Outcome.FAILED: 1.0})
    verdict = judge(make_run(phases=[Stretch(), failing]))
    assert the(verdict, "failures").passed is False
    assert "internal_error" in the(verdict, "failures").sentence


def test_failures_within_what_was_allowed() -> None:
    run = make_run(change=some(0.05, lost), expect={"failures": 0.1, "slo": False})
    assert judge(run).exit_code == 0


def test_the_warm_up_is_left_out_and_told() -> None:
    def warming(arrival: Arrival, rng: random.Random) -> float:
        return (4.0 if arrival.at < 12 else 0.3) * rng.uniform(0.9, 1.1)

    verdict = judge(make_run(phases=[Stretch(duration_s=100)], first_token=warming))
    assert 10 < verdict.warm_up_s["ee"] < 20
    assert the(verdict, "goodput").value == 1.0


def test_a_phase_that_gets_slower_is_no_warm_up() -> None:
    verdict = judge(make_run(phases=[Stretch("alone"), Stretch("beside", first_token=3.0)]))
    assert verdict.warm_up_s["ee"] < 5
    assert the(verdict, "goodput").passed is False


@pytest.mark.parametrize("times", [1.0, 4.0])
def test_isolation_compares_the_last_phase_with_the_first(times: float) -> None:
    phases = [Stretch("alone"), Stretch("beside", first_token=0.3 * times)]
    verdict = judge(make_run(phases=phases, expect={"slo": False, "isolation": 2.0, "isolated": "acme"}))
    check = the(verdict, "isolation")
    assert check.passed is (times < 2)
    assert check.value == pytest.approx(times, rel=0.3)


def test_an_organisation_that_gets_everything_is_unfair() -> None:
    def hungry(one: Record) -> Record:
        return replace(one, output_tokens=2, gaps=one.gaps[:1], prompt_tokens=2) if one.organisation == "b" else one

    told: dict[str, Any] = {"organisations": ("a", "b"), "expect": {"slo": False, "fairness": 0.9}}
    told |= {"rate": 10.0, "inter_token": 0.14, "phases": [Stretch(duration_s=90)]}
    assert the(judge(make_run(**told)), "fairness").passed is True
    assert the(judge(make_run(**told, change=hungry)), "fairness").passed is False


def test_nobody_backlogged_is_no_proof_of_fairness_and_no_reason_to_doubt() -> None:
    verdict = judge(make_run(rate=0.7, first_token=0.05, inter_token=0.001, expect={"fairness": 0.9}))
    assert the(verdict, "fairness").passed is None
    assert verdict.exit_code == 0


def test_refusals_that_take_their_time() -> None:
    def dawdling(one: Record) -> Record:
        return replace(foreign(one), ended=one.intended + 3)

    expect = {"refusal_p95_s": 0.25}
    assert the(judge(make_run(change=some(0.5, foreign), expect=expect)), "refusal-p95").passed is True
    assert the(judge(make_run(change=some(0.5, dawdling), expect=expect)), "refusal-p95").passed is False


ASTRAY: dict[str, Callable[[Record], Record]] = {
    "answered from abroad": lambda one: replace(one, said_country="kr"),
    "nobody says by whom": lambda one: replace(one, said_country=""),
    "a foreign key served": lambda one: replace(one, kind=Kind.FOREIGN),
    "a foreign key refused for another reason": lambda one: replace(foreign(one), status=429, code="rate_limit"),
    "refused from abroad": lambda one: replace(foreign(one), said_country="kr"),
}


@pytest.mark.parametrize("what", ASTRAY)
def test_one_request_astray_is_one_too_many_even_where_nothing_else_can_be_said(what: str) -> None:
    def stray(one: Record) -> Record:
        return ASTRAY[what](one) if one.serial == 77 else one

    verdict = judge(make_run(change=stray, lag=0.5))
    assert verdict.reasons
    assert the(verdict, "residency").passed is False
    assert "request 77" in the(verdict, "residency").sentence
    assert verdict.exit_code == 1


def test_foreign_keys_that_are_refused_are_as_it_should_be() -> None:
    assert judge(make_run(change=some(0.5, foreign))).exit_code == 0


def test_an_endpoint_that_names_no_country_need_not() -> None:
    assert judge(make_run(residency=False)).exit_code == 0


def test_no_answer_is_no_answer_from_abroad() -> None:
    def unheard(one: Record) -> Record:
        return replace(lost(one), kind=Kind.FOREIGN, said_country="")

    verdict = judge(make_run(change=some(0.1, unheard), expect={"failures": 0.2}))
    assert the(verdict, "residency").passed is True


def test_a_broken_history_breaks_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    violation = history.Violation(history.Rule.ONE_END, "ended 2 times", serial=5)
    monkeypatch.setattr(history, "check", lambda run: [violation])
    verdict = judge(make_run(expect={"history": True}, events=[Event(3.0, "interrupted", "^C")]))
    assert verdict.exit_code == 1
    assert "request 5 ended 2 times" in the(verdict, "history", "").sentence


def test_a_history_that_cannot_be_read_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(run: Run) -> list[history.Violation]:
        raise FileNotFoundError("trace.jsonl")

    monkeypatch.setattr(history, "check", unreadable)
    verdict = judge(make_run(expect={"history": True}))
    assert verdict.exit_code == 2
    assert "trace.jsonl" in verdict.reasons[0]


def overworked(**values: float) -> list[Sample]:
    return [Sample(second + 0.5, "generator", values) for second in range(20, 40)]


SPOILT: dict[str, dict[str, Any]] = {
    "late": {"lag": 0.2},
    "a whole core": {"samples": overworked(cpu=0.99)},
    "overdue": {"samples": overworked(behind=12)},
    "interrupted": {"events": [Event(30.0, "interrupted", "the terminal was closed")]},
    "never answered": {"change": lost},
    "No request": {"change": lambda one: None},
}


@pytest.mark.parametrize("reason", SPOILT)
def test_no_verdict_where_the_figures_are_not_the_services(reason: str) -> None:
    verdict = judge(make_run(first_token=3.0, **SPOILT[reason]))
    assert verdict.exit_code == 2
    assert reason in " ".join(verdict.reasons)
    assert all(check.passed is None for check in verdict.checks if not check.evident)


def test_a_few_late_requests_spoil_nothing() -> None:
    assert judge(make_run(lag=lambda arrival, rng: 0.5 if arrival.serial == 9 else 0.001)).exit_code == 0


def test_a_small_share_of_late_requests_spoils_a_run_where_chance_does_not_explain_it() -> None:
    often = make_run(rate=20.0, lag=lambda arrival, rng: 0.5 if arrival.serial % 25 == 0 else 0.001)
    assert "late" in " ".join(judge(often).reasons)


def test_too_few_requests_say_how_many_are_needed() -> None:
    verdict = judge(make_run(rate=0.2))
    assert verdict.exit_code == 2
    assert "at least 30 are needed" in verdict.reasons[0]


def test_a_broken_promise_stays_one_beside_a_class_of_too_few() -> None:
    def rare(one: Record) -> Record:
        return replace(one, service_class="interactive") if one.serial < 10 else one

    verdict = judge(make_run(first_token=3.0, change=rare))
    assert verdict.reasons
    assert verdict.exit_code == 1


def test_the_other_side_is_not_judged() -> None:
    def theirs_are_slow(arrival: Arrival, rng: random.Random) -> float:
        return 0.3 if arrival.side == OURS else 30.0

    assert judge(make_run(sides=("domicile", "stock"), first_token=theirs_are_slow)).exit_code == 0


def test_figures_of_a_group() -> None:
    run = make_run(first_token=lambda *_: 0.4, inter_token=lambda *_: 0.1, output_tokens=11)
    (group,) = judge(run).groups
    assert group.first_token_s["p99"].value == pytest.approx(0.4)
    assert group.inter_token_s["p50"].value == pytest.approx(0.1)
    assert group.end_to_end_s["p95"].value == pytest.approx(1.4)
    assert group.counts["sent"] == group.counts["finished"] == len(run.records)
    assert group.tokens_out_per_s == pytest.approx(11 * len(run.records) / 60)
    assert group.budget_used is not None
    assert group.budget_used.value == 0


def test_the_same_run_has_the_same_verdict(tmp_path: Path) -> None:
    run = make_run(expect={"isolation": 2.0, "isolated": "acme"}, phases=[Stretch("one"), Stretch("two")])
    assert judge(run).to_json() == judge(write_run(run, tmp_path)).to_json()


def test_what_is_written_is_plain_json_and_valid_xml(tmp_path: Path) -> None:
    def nasty(one: Record) -> Record:
        return replace(one, outcome=Outcome.FAILED, code='<&"\x00\x1b[31m]]>') if one.serial < 40 else one

    verdict = judge(make_run(change=nasty, expect={"refusal_p95_s": 0.2}))
    slo.write(tmp_path, verdict)
    said = json.loads((tmp_path / "verdict.json").read_text())
    assert said == json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert (said["version"], said["verdict"], said["exit_code"]) == (1, "broken", 1)
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]  # noqa: S314 (our own)
    assert int(suite.attrib["tests"]) == len(suite) == len(verdict.checks)
    assert int(suite.attrib["failures"]) == len(suite.findall("*/failure"))
    assert int(suite.attrib["skipped"]) == len(suite.findall("*/skipped")) == 1


def test_why_there_is_no_verdict_is_an_error_in_junit() -> None:
    suite = ElementTree.fromstring(judge(make_run(lag=0.5)).junit())[0]  # noqa: S314 (our own)
    assert "bottleneck" in (suite.findtext("testcase/error") or "")


def test_the_terminal_shows_what_a_service_said_as_text() -> None:
    def nasty(one: Record) -> Record:
        return replace(one, outcome=Outcome.FAILED, code="[red]boo[/]")

    console = Console(width=160, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    console.print(judge(make_run(change=nasty)).summary())
    text = console.export_text()
    assert "[red]boo[/]" in text
    assert "✗" in text
    assert "A promise was broken." in text


def test_runs_of_a_build_agree_away_from_the_border_of_its_promise() -> None:
    well, badly = (simulate(load, repeats=8, seed="1") for load in (0.6, 1.3))
    assert (well.failing, well.agreeing) == (0.0, 1.0)
    assert (badly.failing, badly.agreeing) == (1.0, 1.0)
