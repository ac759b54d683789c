"""The map of rules is closed: no rule without a proof, no proof without its test, no test of a rule left out."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.proof.finding import ROOT, belongs, carrying, functions, named, proofs
from tests.proof.outcome import Judged, Outcome, Verdict, judge
from tests.proof.page import page
from tests.proof.rules import JOURNEY, RULES, TEXT

NOW = datetime(2026, 2, 3, 4, 5, tzinfo=UTC)


def test_every_rule_has_a_proof() -> None:
    assert [rule.code for rule in RULES] == [f"R{number}" for number in range(1, 12)]
    assert all(rule.proofs and rule.beyond for rule in RULES)
    assert all(proof.tests for rule in RULES for proof in rule.proofs)


@pytest.mark.parametrize("name", list(named()))
def test_every_test_that_is_named_exists(name: str) -> None:
    file, _, function = name.partition("::")
    assert functions(ROOT / file)
    assert not function or function in functions(ROOT / file)


def test_every_test_that_is_called_after_a_rule_is_held_against_it() -> None:
    meant = {rule.code: [test for proof in proofs(rule) for test in proof.tests] for rule in RULES}
    assert len(carrying("R4")) > 10
    for code, names in meant.items():
        assert [test for test in carrying(code) if not any(belongs(test, name) for name in [*names, TEXT])] == []


def test_the_journey_is_told_in_its_order() -> None:
    assert list(JOURNEY) == sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_cells_*.py"))


def outcomes(verdict: Verdict = Verdict.PROVEN, why: str = "", **others: tuple[Verdict, str]) -> dict[str, Outcome]:
    """Every test that is named ran, one of each."""
    found = {}
    for name in named():
        for function in [name] if "::" in name else [f"{name}::{each}" for each in functions(ROOT / name)]:
            told = next((other for part, other in others.items() if part in function), (verdict, why))
            found[function] = Outcome(function, told[0], 0.1, told[1], (("packets", "7"),))
    return found


def verdict(judged: list[Judged], code: str) -> Verdict:
    return next(each.verdict for each in judged if each.rule.code == code)


def test_what_all_passed_is_proven() -> None:
    assert {each.verdict for each in judge(outcomes())} == {Verdict.PROVEN}


def test_one_failure_fails_its_rule_and_no_other() -> None:
    judged = judge(outcomes(test_r4_replayed=(Verdict.FAILED, "assert 200 == 403")))
    assert {each.rule.code for each in judged if each.verdict is not Verdict.PROVEN} == {"R4"}
    assert verdict(judged, "R4") is Verdict.FAILED


def test_what_was_skipped_is_never_proven() -> None:
    judged = judge(outcomes(test_cells_=(Verdict.NOT_PROVEN, "needs root")))
    assert verdict(judged, "R1") is Verdict.NOT_PROVEN
    assert verdict(judged, "R11") is Verdict.PROVEN


def test_nor_is_what_did_not_run() -> None:
    ran = outcomes()
    gone = next(test for test in ran if "test_r3_a_request_at_the_wrong_country" in test)
    del ran[gone]
    judged = judge(ran)
    assert {each.rule.code for each in judged if each.verdict is not Verdict.PROVEN} == {"R3"}
    assert {each.verdict for each in judge({})} == {Verdict.NOT_PROVEN}


class Reader(HTMLParser):
    """What a browser would be asked to fetch, and what is left open."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def written(ran: dict[str, Outcome]) -> str:
    return page(judge(ran), [("Commit", "abc")], NOW, NOW)


def test_the_page_asks_nothing_of_anybody() -> None:
    reader = Reader()
    reader.feed(written(outcomes()))
    assert reader.open == []
    assert [each for each in reader.fetched if not each.startswith(("#R", "data:,"))] == []
    assert "@import" not in written(outcomes())
    assert "url(" not in written(outcomes())


def test_the_page_says_what_is_proven_and_what_is_not() -> None:
    assert "All 11 guarantees are proven" in written(outcomes())
    told = written(outcomes(test_cells_=(Verdict.NOT_PROVEN, "needs <root>")))
    assert "needs &lt;root&gt;" in told
    assert "All 11" not in told
    assert "1 of 11 guarantees failed" in written(outcomes(test_r4_replayed=(Verdict.FAILED, "it was served")))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_the_page_does_not_leave_out_what_is_not_shown(rule: object) -> None:
    assert str(rule.beyond)[:40] in written(outcomes())  # type: ignore[attr-defined]


def test_the_style_is_there() -> None:
    assert "@media print" in Path(ROOT / "tests/proof/page.css").read_text()
