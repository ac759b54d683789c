"""What the report says of a run, and that it says it in one file that asks nothing of anybody."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from loadtests import report, slo
from loadtests.record import Arrival, Event, Outcome, Record, Run, Sample
from loadtests.reporting.plots import FEW
from tests.loadtests.runs import Stretch, make_run

HOSTILE = "<img src=//evil.example onerror=alert(1)>\"'&$x$\u202e\x00]]>--></svg>"
FETCHING = {"src", "srcset", "data", "action", "poster", "background", "ping", "formaction", "manifest", "xlink:href"}
VOID = {"meta", "link", "br", "img", "input", "hr"}
SECTIONS = {
    "checks", "time", "spread", "load", "organisations", "errors", "faults", "engine", "honesty", "plan",
}  # fmt: skip


class Page(HTMLParser):
    """A page, taken apart: its elements, its text, and whether its tags match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found))
        self.ids += [found["id"]] if "id" in found else []
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]


def slowing(arrival: Arrival, rng: random.Random) -> float:
    return math.exp(rng.gauss(-1.5, 0.4)) * (1 + (arrival.at / 40) ** 3)


def replicas(seconds: int) -> Iterator[Sample]:
    for at in range(seconds):
        for country in ("ee", "lv"):
            values = {"running": 4.0, "waiting": at / 20, "kv_cache_usage": at / seconds, "queue_s": at / 100}
            yield Sample(at + 0.5, f"replica:{country}:0", values)


def full(**told: Any) -> Run:
    """A run with everything in it: a ramp in steps, two countries, faults, refusals, failures, replicas' samples."""
    steps = [Stretch(f"step-{rate}", 10, rate=float(rate)) for rate in (2, 3, 4, 6, 8, 10)]
    events = [
        Event(25.0, "fault", "kill replica", {"country": "ee", "pid": 4242}),
        Event(31.5, "recovery", "kill replica", {"country": "ee", "fault_at": 25.0}),
        Event(44.0, "fault", "stop gateway", {"country": "lv", "for_s": 2.0}),
    ]
    made: dict[str, Any] = {
        "phases": steps,
        "countries": ("ee", "lv"),
        "classes": {"acme-2": "batch", "acme-3": "interactive"},
        "first_token": slowing,
        "outcomes": {Outcome.FINISHED: 0.9, Outcome.REFUSED: 0.05, Outcome.FAILED: 0.04, Outcome.ABORTED: 0.01},
        "samples": replicas(60),
        "events": events,
    }
    return make_run(**{**made, **told})


def rendered(run: Run) -> str:
    return report.render(run, slo.judge(run))


@pytest.fixture(scope="module")
def html() -> str:
    return rendered(full())


def assert_asks_nothing(html: str) -> None:
    """Of the network. Fragments of the page itself and the empty icon are all that is ever referred to."""
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "img", "image", "base", "form", "foreignobject"}
    for _, attrs in page.elements:
        assert not FETCHING & attrs.keys()
        assert not [name for name in attrs if name.startswith("on")]
        assert attrs.get("href", "#").startswith(("#", "data:,"))
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "@import" not in html
    assert "@font-face" not in html
    (policy,) = [one["content"] for one in page.all("meta") if "http-equiv" in one]
    assert policy.startswith("default-src 'none'")


def test_a_full_run_has_every_section_and_every_plot(html: str) -> None:
    page = Page(html)
    sections = {one["id"] for one in page.all("section")}
    assert sections == SECTIONS
    assert {one["href"] for one in page.all("a")} == {f"#{one}" for one in SECTIONS}
    assert len(page.all("figure")) == 7
    assert "remark" not in {one.get("class") for one in page.all("p")}


def test_it_asks_nothing_of_anybody(html: str) -> None:
    assert_asks_nothing(html)


def test_its_ids_are_its_own_and_all_references_are_met(html: str) -> None:
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    known = set(page.ids)
    named = re.findall(r"url\(#([^)]+)\)", html) + [
        one["href"][1:] for tag, one in page.elements if tag in ("use", "a")
    ]
    described = [id for _, one in page.elements for id in one.get("aria-labelledby", "").split()]
    assert set(named) | set(described) <= known


def test_every_plot_has_a_name_and_a_description_in_words(html: str) -> None:
    plots = Page(html).all("svg")
    assert len(plots) == 7
    for one in plots:
        assert one["role"] == "img"
        assert one["aria-labelledby"].count("-") == 2
    assert len(re.findall(r"<desc [^>]*>[^<]{40,}</desc>", html)) == 7
    assert "<metadata" not in html


def test_plots_take_their_colours_from_the_page(html: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]+)", drawn)) <= {"#ffffff"}
    style = html[: html.index("</style>")]
    assert set(re.findall(r"var\((--[a-z-]+)\)", drawn)) <= set(re.findall(r"(--[a-z-]+):", style))


def test_the_same_run_gives_the_same_bytes(html: str) -> None:
    assert rendered(full()) == html


def test_it_says_how_to_repeat_the_run(html: str) -> None:
    run = full()
    assert "domicile loadtest run/scenario.yaml --seed 1" in Page(html).text
    odd = replace(run, folder=run.folder.with_name("it's; here"), plan={**run.plan, "capacity": {"ee": 4.5}})
    assert report.command(odd) == "domicile loadtest 'it'\"'\"'s; here/scenario.yaml' --seed 1 --capacity ee=4.5"


def test_what_comes_from_outside_stays_text() -> None:
    def renamed(record: Record) -> Record:
        bad = record.outcome is Outcome.FAILED
        return replace(record, organisation=HOSTILE, code=HOSTILE if bad else record.code)

    run = full(change=renamed)
    scenario = {**run.plan["scenario"], "title": HOSTILE, "about": HOSTILE, "name": HOSTILE}
    events = (*run.events, Event(30.0, "fault", HOSTILE, {"country": HOSTILE, "error": HOSTILE}))
    machine = {"processor": HOSTILE, "cores": 2}
    phases = [{**one, "name": HOSTILE} for one in run.plan["phases"]]
    hostile = replace(run, events=events, plan={**run.plan, "scenario": scenario, "machine": machine, "phases": phases})
    html = report.render(hostile, slo.judge(run))
    assert_asks_nothing(html)
    assert "onerror" in Page(html).text, "it is shown, as text"
    assert "\u202e" not in html
    assert "\x00" not in html


def test_an_interrupted_run_says_so_at_the_top() -> None:
    run = full()
    cut = replace(
        run,
        records=tuple(one for one in run.records if one.ended < 30),
        samples=tuple(one for one in run.samples if one.at < 30),
        events=(*(one for one in run.events if one.at < 30), Event(30.0, "interrupted", "SIGINT came")),
    )
    html = rendered(cut)
    header = Page(html[: html.index("</header>")] + "</header></body></html>").text
    assert "Interrupted after 30 s of 60 s: SIGINT came" in header


def test_a_run_without_requests_still_has_a_report_that_says_so() -> None:
    run = full()
    empty = replace(run, records=(), samples=(), events=())
    html = rendered(empty)
    assert_asks_nothing(html)
    page = Page(html)
    assert "no request was recorded" in page.text
    assert page.all("figure") == []
    assert "nan" not in page.text.lower().split()


def test_a_plan_with_little_in_it_is_no_hindrance() -> None:
    run = full()
    bare = replace(run, plan={"seed": 1, "phases": [], "targets": {"sides": []}})
    assert "<h1>Load test</h1>" in report.render(bare, slo.judge(run))


def test_faults_are_numbered_and_recovery_is_timed(html: str) -> None:
    run = full()
    ends = min(
        one.ended for one in run.records if one.country == "ee" and one.outcome is Outcome.FINISHED and one.ended >= 25
    )
    table = html[html.index('id="faults"') : html.index('id="engine"')]
    assert f"{(ends - 25) * 1000:.0f}" in table
    assert "6.5 s" in table, "when the process was back"
    assert re.search(r">\s*F1</text>", html), "and in the plots"


def test_a_promise_that_is_broken_shows_in_its_cell() -> None:
    html = rendered(make_run(first_token=9.0))
    row = html[html.index('<th scope="row">EE</th>') :].split("</tr>")[0]
    assert 'class="n bad">0%' in row
    assert "≤ 2 s" in row


def test_two_sides_are_compared_within_the_report() -> None:
    run = make_run(sides=("domicile", "stock"), phases=[Stretch("steady", 240)], slice_s=10)
    page = Page(rendered(run))
    assert "sides" in {one["id"] for one in page.all("section")}
    assert len(page.ids) == len(set(page.ids))
    assert "No difference shown" in page.text


def test_a_large_run_is_still_a_small_file() -> None:
    run = make_run(phases=[Stretch("steady", 60)], rate=100.0, output_tokens=4)
    copies = [
        replace(one, serial=one.serial + 100_000 * turn, intended=one.intended + 60 * turn, ended=one.ended + 60 * turn,
                first=None if one.first is None else one.first + 60 * turn, organisation=f"org-{one.serial % 300}")
        for turn in range(9) for one in run.records
    ]  # fmt: skip
    phases = [{**run.plan["phases"][0], "end": 540.0}]
    large = replace(run, records=tuple(copies), plan={**run.plan, "phases": phases})
    assert len(large.records) > 50_000 > FEW
    assert len(report.render(large, slo.judge(run))) < 1_000_000
