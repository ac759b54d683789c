"""A run's report: one HTML file that asks nothing of anybody and can be mailed, archived and printed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtests import compare, words
from loadtests.record import OURS, Outcome, Run
from loadtests.reporting import page, plots, tables
from loadtests.reporting.promises import counted, kept
from loadtests.reporting.series import View, quantile
from loadtests.reporting.svg import Drawing

if TYPE_CHECKING:
    from loadtests.slo import Verdict

_TONES: dict[int, page.Tone] = {0: "good", 1: "bad"}
_SAID = {0: "Promises kept.", 1: "A promise was broken."}

_Plot = tuple[str, Callable[[View], Drawing | str]]


def render(run: Run, verdict: Verdict) -> str:
    """The report as HTML, with everything in it that it needs."""
    view = View(run)
    title = str(run.plan.get("scenario", {}).get("title", "Load test"))
    sections = [(key, name, inner) for key, name, inner in _sections(view, verdict) if inner]
    links = page.contents((key, name) for key, name, _ in sections)
    body = "".join(page.section(key, name, inner) for key, name, inner in sections)
    head = _header(view, verdict, title) + _key_figures(view) + links
    return page.page(title, f"<header>{head}</header><main>{body}</main>{_footer(run)}")


def _sections(view: View, verdict: Verdict) -> list[tuple[str, str, str]]:
    """Key, title and HTML of each; one without HTML is left out."""
    return [
        ("checks", "Verdict", tables.checks(verdict)),
        ("time", "Over time", _drawn(view, ("First token", plots.latency), ("Outcomes", plots.outcomes))),
        ("spread", "How waiting is spread", _drawn(view, ("Distributions", plots.distributions)) + tables.cells(view)),
        ("load", "Rate against latency", _drawn(view, ("Windows", plots.rate))),
        ("sides", "Against the other side", _sides(view)),
        ("organisations", "Organisations", _drawn(view, ("Shares", plots.organisations)) + tables.organisations(view)),
        ("errors", "Refusals and failures", tables.errors(view)),
        ("faults", "Faults and recovery", tables.faults(view)),
        ("engine", "Inside the engines", _drawn(view, ("KV cache and queue", plots.replicas))),
        (
            "honesty",
            "Is the load generator to blame?",
            _drawn(view, ("CPU and lag", plots.machine)) + tables.honesty(view),
        ),
        ("plan", "The plan", tables.plan(view) + page.more("How to repeat this", _again(view.run))),
    ]


def _drawn(view: View, *drawn: _Plot) -> str:
    parts = []
    for title, draw in drawn:
        drawing = draw(view)
        parts.append(
            page.remark(drawing) if isinstance(drawing, str) else page.figure(title, drawing.svg, drawing.says)
        )
    return "".join(parts)


def _header(view: View, verdict: Verdict, title: str) -> str:
    plan, tone = view.run.plan, _TONES.get(verdict.exit_code, "warn")
    scenario = plan.get("scenario", {})
    said = page.escape(tables.said(verdict))
    lines = [f"<p><b>{_SAID.get(verdict.exit_code, 'No verdict.')}</b> {said}</p>", *_caveats(view)]
    kicker = f"Load test · {scenario.get('name', '')} · {when(plan.get('began'))}"
    return (
        f'<p class="kicker">{page.escape(kicker)}</p><h1>{page.escape(title)}</h1>'
        f"{page.paragraph(scenario['about'], 'about') if scenario.get('about') else ''}"
        f'<div class="verdict {tone}" role="status">{"".join(lines)}</div>{page.facts(_facts(view))}{_again(view.run)}'
    )


def _caveats(view: View) -> list[str]:
    """What limits everything below."""
    found = []
    if view.interrupted:
        planned = float(view.run.plan.get("duration_s", 0.0))
        found.append(
            f"Interrupted after {words.seconds(view.interrupted.at)} of {words.seconds(planned)}: "
            f"{view.interrupted.what or 'the run was stopped'}. What follows is what was seen until then."
        )
    if not view.run.records:
        found.append("Empty run: no request was recorded, so there is nothing to measure.")
    return [page.paragraph(one) for one in found]


def _facts(view: View) -> list[tuple[str, str]]:
    plan = view.run.plan
    machine: dict[str, Any] = dict(plan.get("machine") or {})
    countries = dict.fromkeys(code.upper() for side, code in view.targets if side == view.side)
    sides = list(dict.fromkeys(side for side, _ in view.targets))
    own = [f"{machine[key]} {name}" for key, name in (("cores", "cores"), ("memory_gib", "GiB")) if key in machine]
    versions = ", ".join(f"{name} {one}" for name, one in (plan.get("versions") or {}).items())
    return [
        ("Began", when(plan.get("began"))),
        ("Lasted", f"{words.seconds(view.ends)}, planned {words.seconds(float(plan.get('duration_s', 0.0)))}"),
        ("Countries", ", ".join(countries)),
        ("Compared", " with ".join(sides) if len(sides) > 1 else ""),
        ("Models", ", ".join(dict.fromkeys(str(one.get("model", "")) for one in view.targets.values()))),
        ("Machine", ", ".join([str(machine[key]) for key in ("processor",) if machine.get(key)] + own)),
        ("System", str(machine.get("system", ""))),
        ("Versions", versions),
        ("Commit", str(plan.get("commit") or "")),
        ("Seed", str(plan.get("seed", ""))),
    ]


def command(run: Run) -> str:
    """What repeats the run: the scenario as it was run, the same seed, the same capacity."""
    words_of = ["domicile", "loadtest", str(run.folder / "scenario.yaml"), "--seed", str(run.plan.get("seed", 1))]
    for code, rate in (run.plan.get("capacity") or {}).items():
        words_of += ["--capacity", f"{code}={rate:g}"]
    return shlex.join(words_of)


def _again(run: Run) -> str:
    return page.code(command(run))


def when(began: Any) -> str:
    """A time of RFC 3339 as people write it."""
    try:
        return datetime.fromisoformat(str(began)).strftime("%-d %B %Y, %H:%M %Z").strip()
    except ValueError:
        return str(began or "")


def _key_figures(view: View) -> str:
    """What one wants to know first."""
    requests = view.requests
    total = len(requests.records)
    if not total:
        return ""
    counts = {one: int(requests.is_(one).sum()) for one in Outcome}
    good, asked = int(kept(view, requests).sum()), int(counted(view, requests).sum())
    inter = requests.inter_token_s
    tokens = float(requests.tokens.sum()) / view.seconds
    late = quantile(np.array([one.lag_s for one in requests.records]), 0.99)
    failed: page.Tone = "bad" if counts[Outcome.FAILED] else "calm"
    return page.figures(
        [
            ("Requests", words.count(total), f"{words.digits(total / view.seconds)} a second", "calm"),
            ("Kept the promise", words.share(good / asked if asked else float("nan")), "goodput, all phases", "calm"),
            (
                "First token p95",
                words.seconds(quantile(requests.first_token_s, 0.95)),
                _half(requests.first_token_s),
                "calm",
            ),
            ("Between tokens p95", words.seconds(quantile(inter, 0.95)), _half(inter), "calm"),
            ("Output", f"{words.digits(tokens)}/s", "tokens a second", "calm"),
            ("Refused", words.count(counts[Outcome.REFUSED]), words.share(counts[Outcome.REFUSED] / total), "calm"),
            ("Failed", words.count(counts[Outcome.FAILED]), words.share(counts[Outcome.FAILED] / total), failed),
            ("Generator lag p99", words.seconds(late), "late in sending", "calm"),
        ]
    )


def _half(values: Any) -> str:
    return f"p50 {words.seconds(quantile(values, 0.5))}"


def _sides(view: View) -> str:
    other = next((side for side, _ in view.targets if side != OURS), None)
    if other is None:
        return ""
    found = compare.compare(View(view.run, other), view, (other, OURS))
    return page.paragraph(compare.sentence(found)) + compare.as_html(found)


def _footer(run: Run) -> str:
    made = f"Made from {run.folder.name or 'a run'}."
    return page.footer(f"{made} Latencies count from when a request was due, not from when it was sent.")
