"""The verdict on a run: were the promises kept?

``verdict.json`` holds, with times in seconds, shares between 0 and 1, and intervals of 95% confidence as
``[low, high]``, where ``null`` is an end that the run was too short to bound::

    version      1; raised when a name changes its meaning
    scenario     its name
    exit_code    0 promises kept, 1 one was broken, 2 no verdict
    verdict      "kept", "broken" or "none"
    reasons      why there is no verdict, as sentences
    warm_up_s    by country: what was cut from the beginning of the first phase
    groups       of each country and service class: country, service_class, counts {sent, finished, refused, failed,
                 aborted}, seconds, tokens_in_per_s, tokens_out_per_s, objective, and as {value, interval}: goodput,
                 budget_used, and {p50, p95, p99} of first_token_s, inter_token_s and end_to_end_s
    checks       name, country, service_class, passed (true, false, null), close, value, limit, interval, sentence

A broken promise that was measured well is a broken promise even where other figures are missing. A run whose load
generator was late, that was interrupted or that nobody answered says nothing about promises, so those checks are
left open; a violation of residency or of a request's history stays one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from rich.console import RenderableType

from loadtests.judging import checks, figures, honesty, junit, summary
from loadtests.judging.checks import Check
from loadtests.judging.evidence import Evidence
from loadtests.judging.figures import Figure, Group, Quantiles
from loadtests.judging.statistics import Interval
from loadtests.record import JUNIT, VERDICT, Run

KEPT, BROKEN, NONE = 0, 1, 2
VERSION = 1


@dataclass(frozen=True)
class Verdict:
    """What a run says about the promises, and how it says it."""

    scenario: str
    groups: tuple[Group, ...]
    checks: tuple[Check, ...]
    reasons: tuple[str, ...]
    """Why there is no verdict."""
    warm_up_s: Mapping[str, float]
    """What was cut from the run's beginning, by country."""

    @property
    def exit_code(self) -> int:
        """0 promises kept, 1 one was broken, 2 no verdict."""
        if any(check.passed is False for check in self.checks):
            return BROKEN
        return NONE if self.reasons else KEPT

    @property
    def word(self) -> str:
        return ("kept", "broken", "none")[self.exit_code]

    def to_json(self) -> dict[str, Any]:
        """As the module's docstring describes it: nothing but what JSON has."""
        return {
            "version": VERSION,
            "scenario": self.scenario,
            "exit_code": self.exit_code,
            "verdict": self.word,
            "reasons": list(self.reasons),
            "warm_up_s": dict(self.warm_up_s),
            "groups": [_group(one) for one in self.groups],
            "checks": [_check(one) for one in self.checks],
        }

    def junit(self) -> str:
        """As CI systems read it: a test case for each check."""
        return junit.render(self.scenario, self.checks, self.reasons)

    def summary(self) -> RenderableType:
        """For a terminal."""
        return summary.render(self.word, self.groups, self.checks, self.reasons, self.warm_up_s)


def judge(run: Run) -> Verdict:
    """The verdict on the side under test, from nothing but what is in the run's folder."""
    evidence = Evidence(run)
    claims = checks.claims(evidence)
    dishonest = honesty.reasons(evidence)
    decided = [checks.decide(claim, len(claims)) for claim in claims]
    missing = [
        check.sentence for claim, check in zip(claims, decided, strict=True) if claim.needed and check.passed is None
    ]
    evident = [*checks.residency(evidence), *checks.history(evidence)]
    unread = [check.sentence for check in evident if check.passed is None]
    if dishonest:
        decided = [_left_open(check) for check in decided]
    begin = float(evidence.phases[0]["begin"]) if evidence.phases else 0.0
    return Verdict(
        scenario=evidence.scenario.name,
        groups=figures.groups(evidence),
        checks=(*decided, *evident),
        reasons=(*dishonest, *missing, *unread),
        warm_up_s={code: at - begin for code, at in evidence.warm_from.items()},
    )


def write(folder: Path, verdict: Verdict) -> None:
    """Put ``verdict.json`` and ``junit.xml`` into the run's folder."""
    (folder / VERDICT).write_bytes(orjson.dumps(verdict.to_json(), option=orjson.OPT_INDENT_2))
    (folder / JUNIT).write_text(verdict.junit(), encoding="utf-8")


def _left_open(check: Check) -> Check:
    return replace(check, passed=None, close=False)


def _check(one: Check) -> dict[str, Any]:
    return {
        "name": one.name,
        "country": one.country,
        "service_class": one.service_class,
        "passed": one.passed,
        "close": one.close,
        "value": _number(one.value),
        "limit": one.limit,
        "interval": _interval(one.interval),
        "sentence": one.sentence,
    }


def _group(one: Group) -> dict[str, Any]:
    return {
        "country": one.country,
        "service_class": one.service_class,
        "counts": dict(one.counts),
        "seconds": one.seconds,
        "tokens_in_per_s": one.tokens_in_per_s,
        "tokens_out_per_s": one.tokens_out_per_s,
        "objective": one.objective,
        "goodput": _figure(one.goodput),
        "budget_used": _figure(one.budget_used),
        **dict(_quantiles(one)),
    }


def _quantiles(one: Group) -> Iterator[tuple[str, dict[str, Any]]]:
    named: Iterable[tuple[str, Quantiles]] = (
        ("first_token_s", one.first_token_s),
        ("inter_token_s", one.inter_token_s),
        ("end_to_end_s", one.end_to_end_s),
    )
    for name, quantiles in named:
        yield name, {share: _figure(figure) for share, figure in quantiles.items()}


def _figure(figure: Figure | None) -> dict[str, Any] | None:
    return None if figure is None else {"value": _number(figure.value), "interval": _interval(figure.interval)}


def _interval(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [_number(interval.low), _number(interval.high)]


def _number(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None
