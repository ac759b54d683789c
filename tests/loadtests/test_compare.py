"""A difference that is there is found, and one that is not is not claimed."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from loadtests import compare
from loadtests.compare import Word
from loadtests.record import OURS, Arrival, Outcome, Record, Run
from loadtests.reporting.series import View
from tests.loadtests.runs import Stretch, make_run
from tests.loadtests.test_report import HOSTILE, Page, assert_asks_nothing

MIXED = {Outcome.FINISHED: 0.95, Outcome.REFUSED: 0.02, Outcome.FAILED: 0.03}


def made(seed: int = 1, name: str = "one", **told: Any) -> Run:
    fitting: dict[str, Any] = {"phases": [Stretch("steady", 200)], "rate": 8.0, "outcomes": MIXED, **told}
    return make_run(folder=Path(name), seed=seed, **fitting)


def words(found: compare.Comparison) -> dict[str, Word]:
    return {line.figure: line.word for line in found.lines}


@pytest.mark.parametrize(("factor", "word"), [(1.2, Word.WORSE), (1 / 1.2, Word.BETTER)])
def test_a_fifth_slower_is_worse_and_a_fifth_faster_is_better(factor: float, word: Word) -> None:
    found = compare.compare_runs(made(1), made(2, "other", first_token=0.3 * factor, inter_token=0.05 * factor))
    said = words(found)
    assert {said[name] for name in ("first token p50", "first token p95", "inter-token p50", "end to end p95")} == {
        word
    }
    assert said["failures"] is Word.SAME
    first = next(line for line in found.lines if line.figure == "first token p50")
    assert first.ratio == pytest.approx(factor, rel=0.1)
    assert first.low < first.ratio < first.high
    assert first.ratio == pytest.approx(first.other / first.one)


def test_two_runs_of_the_same_are_seldom_said_to_differ() -> None:
    claims = [
        line
        for seed in range(0, 12, 2)
        for line in compare.compare_runs(made(seed), made(seed + 1, "other")).lines
        if line.word is not Word.SAME
    ]
    assert len(claims) <= 1, "of 48 figures"


def test_slow_minutes_that_both_sides_share_are_no_difference() -> None:
    def weather(arrival: Arrival, _: Any) -> float:
        return 0.3 * (3.0 if int(arrival.at / 40) % 3 == 0 else 1.0)

    run = made(sides=(OURS, "stock"), first_token=weather, slice_s=10)
    found = compare.compare(View(run, "stock"), View(run), ("stock", OURS))
    assert found.paired
    assert Word.BETTER not in words(found).values()
    assert Word.WORSE not in words(found).values()


def test_a_side_that_is_slower_is_found_in_an_interleaved_run() -> None:
    def slower(arrival: Arrival, rng: Any) -> float:
        return float(rng.lognormvariate(-1, 0.3)) * (1.2 if arrival.side == "stock" else 1.0)

    run = made(sides=(OURS, "stock"), first_token=slower, slice_s=10)
    found = compare.compare(View(run, "stock"), View(run), ("stock", OURS))
    assert words(found)["first token p50"] is Word.BETTER
    assert words(found)["inter-token p50"] is Word.SAME


def test_more_failures_are_worse_even_where_there_were_none() -> None:
    failing = {Outcome.FINISHED: 0.8, Outcome.FAILED: 0.2}
    found = compare.compare_runs(made(outcomes={Outcome.FINISHED: 1.0}), made(2, "other", outcomes=failing))
    assert words(found)["failures"] is Word.WORSE
    assert words(found)["goodput"] is Word.WORSE


def test_a_handful_of_requests_tells_nothing() -> None:
    found = compare.compare_runs(made(rate=0.1), made(2, "other", rate=0.1, first_token=3.0))
    assert set(words(found).values()) == {Word.FEW}
    assert "too few" in compare.sentence(found)


def test_runs_of_different_countries_have_nothing_in_common() -> None:
    found = compare.compare_runs(made(), made(countries=("lv",)))
    assert found.lines == ()
    assert "nothing can be compared" in compare.render(made(), made(countries=("lv",)))


def test_empty_runs_can_be_compared() -> None:
    empty = replace(made(), records=(), samples=(), events=())
    for pair in ((empty, empty), (made(), empty), (empty, made())):
        assert_asks_nothing(compare.render(*pair))


def test_the_page_shows_both_and_warns_of_what_else_was_different() -> None:
    html = compare.render(made(), made(2, "other", inter_token=0.1))
    assert_asks_nothing(html)
    page = Page(html)
    assert len(page.all("figure")) == 2
    assert "other against one" in page.text
    assert "Mind that the two had different" in page.text
    assert "seeds" in page.text


def test_names_from_outside_stay_text() -> None:
    def renamed(record: Record) -> Record:
        return replace(record, country=HOSTILE, service_class=HOSTILE)

    html = compare.render(made(name="[red]<b>", change=renamed), made(2, "other", change=renamed))
    assert_asks_nothing(html)
    assert "onerror" in Page(html).text


def test_the_terminal_shows_the_same_in_a_table() -> None:
    found = compare.compare_runs(made(name="[red]"), made(2, "other", inter_token=0.1))
    written = io.StringIO()
    Console(file=written, width=200).print(compare.as_table(found))
    assert "[red]" in written.getvalue()
    assert written.getvalue().count("worse") > 1
