"""What is asked of a run, and what its evidence says to that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from loadtests import words
from loadtests.judging.evidence import Evidence, counts, keeps
from loadtests.judging.fairness import WINDOW_S, contested
from loadtests.judging.statistics import CONFIDENCE, Estimate, Interval, mean, proportion, quantile, quantile_ratio
from loadtests.record import Kind, Outcome, Record
from tenants.errors import TenantError

FEWEST = 30
"""Requests without which nothing is said of a share or a quantile."""
FEWEST_WINDOWS = 6
"""The same for what is counted by windows of time."""
_UNAUTHORISED, _OK = 401, 200
_MOST_TOLD = 3
"""Violations that are told one by one; the others are counted."""

Bound = Literal["at least", "at most"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked, and the answer."""

    name: str
    country: str
    """Empty where it is about the whole run."""
    service_class: str
    """Empty where it is about all of them."""
    passed: bool | None
    """``None``: not decided. What keeps the whole run from a verdict is among the verdict's reasons besides."""
    value: float | None
    limit: float
    interval: Interval | None
    """Of 95% confidence."""
    sentence: str
    close: bool = False
    """The limit lies within the interval: what was decided is within what chance does."""
    evident: bool = False
    """Holds whatever the load generator's state was: a count of things that must not be."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Something asked whose answer is an estimate. ``None``: there was nothing to estimate it from."""

    name: str
    country: str
    service_class: str
    estimate: Estimate | None
    bound: Bound
    limit: float
    subject: str
    """What the value is, for the sentence."""
    told: Callable[[float], str]
    """The value, for people."""
    missing: str = ""
    """Why there is no estimate."""
    needed: bool = False
    """Whether there is no verdict without an estimate."""


def claims(evidence: Evidence) -> tuple[Claim, ...]:
    """Everything of the run that is decided by an estimate."""
    return (
        *_goodput(evidence),
        *_first_token(evidence),
        *_failures(evidence),
        *_refusals(evidence),
        *_isolation(evidence),
        *_fairness(evidence),
    )


def decide(claim: Claim, family: int) -> Check:
    """What an estimate says to a claim, so that runs of the same build agree.

    A claim is denied by evidence: when the interval lies beyond the limit as a whole. While the limit is within the
    interval the claim passes, and is called close. A rule that compares the value itself tosses a coin for every
    service that is built to just keep its promise, as those are whose capacity is planned by it; this one moves the
    coin toss to where the promise is broken by some standard errors, a place nobody aims at. The price is that a small
    breach passes, closely: a longer run sees it. That ends where the value is beyond the limit by as much again as
    was allowed, the error budget spent twice: near saturation a queue grows throughout the run, whose interval then
    excludes nothing, and what its callers met is bad enough. A limit of 0 failures has no such margin, as a single
    one is evidence. ``python -m loadtests.agreement`` measures how often the verdicts of this rule agree.

    ``family`` is how many claims the run decides: each has its share of the chance of a false alarm (Bonferroni), or
    else a run over ten countries would fail ten times as often as a run over one.
    """
    if claim.estimate is None:
        return _check(claim, None, None, None, f"{claim.subject}: {claim.missing}.")
    value, interval = claim.estimate.value, claim.estimate.interval()
    judged_by = claim.estimate.interval(1 - (1 - CONFIDENCE) / max(family, 1))
    at_least = claim.bound == "at least"
    if at_least:
        passed = judged_by.high >= claim.limit and value >= 2 * claim.limit - 1
    else:
        passed = judged_by.low <= claim.limit and value <= 2 * claim.limit
    close = judged_by.low < claim.limit < judged_by.high < np.inf
    sentence = f"{claim.subject}: {claim.told(value)} ({_between(interval, claim.told)} with 95% confidence)"
    sentence += f", asked for {claim.bound} {claim.told(claim.limit)}"
    if passed and (value < claim.limit if at_least else value > claim.limit):
        sentence += "; beyond the limit by no more than chance does, so it passes"
    elif close:
        sentence += "; close"
    return _check(claim, passed, value, interval, sentence + ".", close)


def _between(interval: Interval, told: Callable[[float], str]) -> str:
    low, high = told(interval.low), told(interval.high)
    return f"{low} to {high}" if np.isfinite(interval.high) else f"{low} or more"


def _check(
    claim: Claim,
    passed: bool | None,
    value: float | None,
    interval: Interval | None,
    sentence: str,
    close: bool = False,
) -> Check:
    return Check(claim.name, claim.country, claim.service_class, passed, value, claim.limit, interval, sentence, close)


def _too_few(records: Sequence[object], what: str) -> str:
    return f"{len(records)} {what}, and at least {FEWEST} are needed" if len(records) < FEWEST else ""


def _goodput(evidence: Evidence) -> Iterator[Claim]:
    if not evidence.scenario.expect.slo and evidence.scenario.expect.goodput is None:
        return
    for (country, service_class), records in _expected_groups(evidence):
        promise = evidence.promise(country, service_class)
        told = [keeps(one, promise) for one in records if counts(one, promise)]
        missing = _too_few(told, "requests were judged")
        subject = f"Share of {country}'s {service_class} requests that were served as promised"
        yield Claim(
            "goodput",
            country,
            service_class,
            None if missing else proportion(told),
            "at least",
            evidence.scenario.expect.goodput or promise.objective,
            subject,
            words.share,
            missing,
            needed=True,
        )


def _expected_groups(evidence: Evidence) -> Iterator[tuple[tuple[str, str], tuple[Record, ...]]]:
    """The groups, and for a country without any request in a judged phase an empty one."""
    yield from evidence.groups.items()
    if evidence.judged_phases:
        for code in evidence.scenario.countries:
            if all(country != code for country, _ in evidence.groups):
                yield (code, "standard"), ()


def _first_token(evidence: Evidence) -> Iterator[Claim]:
    limit = evidence.scenario.expect.first_token_p99_s
    if limit is None:
        return
    for (country, service_class), records in _expected_groups(evidence):
        values = [value for one in records if (value := evidence.waited_s(one)) is not None]
        missing = _too_few(values, "first tokens came")
        estimate = None if missing else quantile(values, 0.99)
        subject = f"First token p99 of {country}'s {service_class} requests"
        yield Claim(
            "first-token-p99", country, service_class, estimate, "at most", limit, subject, words.seconds, missing, True
        )


def _failures(evidence: Evidence) -> Iterator[Claim]:
    """Over the whole run: where promises are not judged, nothing may fail all the same."""
    for country in evidence.countries:
        ended = [
            one.outcome is Outcome.FAILED
            for one in evidence.records
            if one.country == country and one.outcome is not Outcome.ABORTED
        ]
        codes = Counter(
            one.code or "without a code"
            for one in evidence.records
            if one.country == country and one.outcome is Outcome.FAILED
        )
        why = ", ".join(f"{count} × {code}" for code, count in codes.most_common(_MOST_TOLD))
        subject = f"Share of {country}'s requests that failed" + (f" ({why})" if why else "")
        estimate = proportion(ended) if ended else None
        limit = evidence.scenario.expect.failures
        yield Claim("failures", country, "", estimate, "at most", limit, subject, words.share, "nothing was sent")


def _refusals(evidence: Evidence) -> Iterator[Claim]:
    limit = evidence.scenario.expect.refusal_p95_s
    if limit is None:
        return
    for country in evidence.countries:
        waits = [
            one.end_to_end_s
            for one in evidence.records
            if one.country == country and one.outcome is Outcome.REFUSED and one.phase in evidence.calm_phases
        ]
        # Where little is refused, little can be said, and nothing needs to be.
        missing = _too_few(waits, "requests were refused")
        estimate = None if missing else quantile(waits, 0.95)
        subject = f"Time to a refusal in {country}, p95"
        yield Claim("refusal-p95", country, "", estimate, "at most", limit, subject, words.seconds, missing)


def _isolation(evidence: Evidence) -> Iterator[Claim]:
    expect, phases = evidence.scenario.expect, evidence.judged_phases
    if expect.isolation is None or expect.isolated is None:
        return
    for country in evidence.countries:
        before, after = (
            _first_tokens_of(evidence, country, expect.isolated, phase) for phase in (phases[:1], phases[-1:])
        )
        missing = _too_few(min(before, after, key=len), f"first tokens of {expect.isolated} came in one of the phases")
        if len(phases) < 2:
            missing = "needs two judged phases to compare"
        estimate = None if missing else quantile_ratio(np.array(before), np.array(after), 0.95, evidence.scenario.seed)
        subject = f"First token p95 of {expect.isolated} in {country}" + (
            f", {phases[-1]} over {phases[0]}" if len(phases) > 1 else ""
        )
        yield Claim(
            "isolation", country, "", estimate, "at most", expect.isolation, subject, words.ratio, missing, True
        )


def _first_tokens_of(evidence: Evidence, country: str, group: str, phases: Sequence[str]) -> list[float]:
    return [
        value
        for one in evidence.judged
        if one.country == country and one.phase in phases and _member(one.organisation, group)
        if (value := evidence.waited_s(one)) is not None
    ]


def _member(organisation: str, group: str) -> bool:
    """Organisations that behave alike are called id-1, id-2, …, or just id where there is one."""
    return organisation == group or organisation.removeprefix(f"{group}-").isdecimal()


def _fairness(evidence: Evidence) -> Iterator[Claim]:
    limit = evidence.scenario.expect.fairness
    if limit is None:
        return
    for code, country in evidence.countries.items():
        records = [one for one in evidence.records if one.country == code and one.kind is not Kind.FOREIGN]
        weights = {one.id: one.weight for one in country.organisations}
        windows = contested(records, weights, evidence.spans(evidence.calm_phases, code))
        estimate = mean(windows, evidence.scenario.seed) if len(windows) >= FEWEST_WINDOWS else None
        subject = f"Jain's index over {code}'s backlogged organisations"
        missing = f"two were backlogged at once in {words.named(len(windows), 'window')} of {WINDOW_S:g} s"
        missing += f", and at least {FEWEST_WINDOWS} are needed"
        yield Claim("fairness", code, "", estimate, "at least", limit, subject, words.digits, missing)


def residency(evidence: Evidence) -> Iterator[Check]:
    """No answer from elsewhere, and no foreign key served; for each country, over the whole run."""
    for code in evidence.countries:
        found = [what for one in evidence.records if one.country == code and (what := _astray(one, evidence))]
        sentence = f"All that was asked of {code} was answered there, and no foreign key was."
        if found:
            sentence = f"{words.named(len(found), 'violation')} of {code}'s residency: {_some(found)}."
        yield Check("residency", code, "", not found, float(len(found)), 0.0, None, sentence, evident=True)


def _astray(one: Record, evidence: Evidence) -> str:
    """What is wrong about where a request was answered, or nothing."""
    said, code = one.said_country.lower(), one.country
    if one.kind is Kind.FOREIGN and (one.status or one.first is not None):
        refused = one.outcome is Outcome.REFUSED and one.status == _UNAUTHORISED and one.code == "incorrect_hostname"
        if not refused:
            return f"request {one.serial} with a foreign key was {one.outcome} ({one.status} {one.code})".rstrip()
    if said and said != code:
        return f"request {one.serial} was answered by {said}"
    if not said and one.status == _OK and evidence.countries[code].residency:
        return f"request {one.serial} was answered by nobody knows whom"
    return ""


def history(evidence: Evidence) -> Iterator[Check]:
    """Every request's history, where the scenario asks for it."""
    if not evidence.scenario.expect.history:
        return
    # Here, since a run's history takes its whole schedule to check, and most callers never need it.
    from loadtests.judging import history as records

    try:
        found = [
            f"{'' if one.serial is None else f'request {one.serial} '}{one.what}" for one in records.check(evidence.run)
        ]
    except (TenantError, OSError, ValueError, KeyError) as error:
        sentence = f"The requests' history cannot be checked: {error}."
        yield Check("history", "", "", None, None, 0.0, None, sentence, evident=True)
        return
    sentence = "Every request ended once, with all its tokens, and everything is accounted for."
    if found:
        sentence = f"{words.named(len(found), 'violation')} of what holds of every request: {_some(found)}."
    yield Check("history", "", "", not found, float(len(found)), 0.0, None, sentence, evident=True)


def _some(found: Sequence[str]) -> str:
    more = len(found) - _MOST_TOLD
    return "; ".join(found[:_MOST_TOLD]) + (f"; and {more} more" if more > 0 else "")
