"""The tables of a report, and the sentences about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from loadtests import words
from loadtests.record import Event, Outcome, Record
from loadtests.reporting import page
from loadtests.reporting.page import Cell
from loadtests.reporting.promises import counted, kept, promise
from loadtests.reporting.series import Columns, View, quantile

if TYPE_CHECKING:
    from loadtests.judging.checks import Check
    from loadtests.slo import Verdict

MOST_ROWS = 60
NO_CODE = "(no code)"
AFTERMATH_S = 30.0
"""After a fault, for so long what is seen is put down to it, unless another comes."""


_MARKS: dict[bool | None, Cell] = {
    True: Cell("kept", "good"),
    False: Cell("broken", "bad"),
    None: Cell("not decided", "warn"),
}


def said(verdict: Verdict) -> str:
    """The verdict's grounds in a sentence or two."""
    broken = [one.sentence for one in verdict.checks if one.passed is False]
    grounds = broken or list(verdict.reasons)
    if grounds:
        left = len(grounds) - 1
        return grounds[0] + (f" And {words.named(left, 'more reason')}, below." if left else "")
    close = sum(one.close for one in verdict.checks)
    return f"All {words.named(len(verdict.checks), 'check')} passed" + (f", {close} of them closely." if close else ".")


def checks(verdict: Verdict) -> str:
    """Every check that the verdict is made of, and why there is none, where there is none."""
    reasons = "".join(page.paragraph(one) for one in verdict.reasons)
    rows = [_check_row(one) for one in sorted(verdict.checks, key=lambda one: (one.passed is not False, one.name))]
    head = ("Check", "Country", "Class", "Result", "What was found")
    caption = "Intervals have 95% confidence. Close: the limit lies within what chance does."
    cut = {code: at for code, at in verdict.warm_up_s.items() if at > 0}
    warm = ", ".join(f"{words.seconds(at)} in {code.upper()}" for code, at in cut.items())
    note = page.paragraph(f"Cut as warm-up: {warm}.", "lead") if warm else ""
    return (reasons + page.table(head, rows, caption, words=5) + note) or page.remark("Nothing was checked.")


def _check_row(one: Check) -> page.Row:
    mark = _MARKS[one.passed]
    result = Cell("kept, closely", "warn") if one.passed and one.close else mark
    return one.name, one.country.upper(), one.service_class, result, one.sentence


def cells(view: View) -> str:
    """Every country and class, against what it is promised."""
    rows = [_cell_row(view, key, one) for key, one in view.requests.by("country", "service_class").items()]
    head = (
        "Country", "Class", "Requests", "Goodput", "First token p50", "p95", "p99", "Between tokens p50", "p95", "p99",
        "End to end p50", "p95",
    )  # fmt: skip
    caption = (
        "By country and class, over all phases; the verdict counts the judged ones, without the warm-up. "
        "Red: beyond what is promised."
    )
    return page.table(head, rows, caption, words=2)


def _cell_row(view: View, key: tuple[str, ...], one: Columns) -> page.Row:
    country, service_class = key
    slo = promise(view, country, service_class)
    asked = counted(view, one)
    good = float(kept(view, one)[asked].mean()) if asked.any() else float("nan")
    tone: page.Tone = "bad" if good < slo.objective else "calm"
    return (
        country.upper(),
        service_class,
        words.count(len(one.records)),
        Cell(words.share(good), tone, f"of {words.share(slo.objective)}"),
        *_quantiles(one.first_token_s, (0.5, 0.95, 0.99), slo.first_token_s),
        *_quantiles(one.inter_token_s, (0.5, 0.95, 0.99), slo.inter_token_s),
        *_quantiles(one.end_to_end_s, (0.5, 0.95), None),
    )


def _quantiles(values: Any, shares: tuple[float, ...], limit: float | None) -> list[Cell]:
    found = []
    for share in shares:
        value = quantile(values, share)
        over: page.Tone = "bad" if limit is not None and value > limit else "calm"
        found.append(Cell(words.seconds(value), over, f"≤ {words.seconds(limit)}" if limit and share == 0.95 else ""))
    return found


def organisations(view: View) -> str:
    """Every organisation, those with most requests first."""
    groups = sorted(view.requests.by("country", "organisation").items(), key=lambda item: -len(item[1].records))
    rows = [
        (
            organisation,
            country.upper(),
            ", ".join(sorted({record.service_class for record in one.records})),
            words.count(len(one.records)),
            words.digits(float(one.tokens.sum()) / view.seconds),
            words.seconds(quantile(one.first_token_s, 0.5)),
            words.seconds(quantile(one.first_token_s, 0.95)),
            words.share(float(kept(view, one)[asked].mean()) if (asked := counted(view, one)).any() else float("nan")),
            words.count(int(one.is_(Outcome.REFUSED).sum())),
            words.count(int(one.is_(Outcome.FAILED).sum())),
        )
        for (country, organisation), one in groups[:MOST_ROWS]
    ]
    head = (
        "Organisation", "Country", "Class", "Requests", "Tokens/s", "First token p50", "p95", "Goodput", "Refused",
        "Failed",
    )  # fmt: skip
    left = len(groups) - len(rows)
    caption = "By organisation." + (f" {words.named(left, 'smaller one')} left out." if left else "")
    return page.table(head, rows, caption, words=3)


def errors(view: View) -> str:
    """Everything that did not finish, by code."""
    counted: Counter[tuple[str, str, int]] = Counter()
    answered: dict[tuple[str, str, int], list[Record]] = {}
    for one in (*view.requests.records, *view.foreign.records):
        if one.outcome is not Outcome.FINISHED:
            key = (one.code or NO_CODE, one.outcome.value, one.status)
            counted[key] += 1
            answered.setdefault(key, []).append(one)
    if not counted:
        return page.remark("Every request that was sent finished." if view.run.records else "No request was recorded.")
    total = len(view.requests.records) + len(view.foreign.records)
    rows = [_error_row(key, answered[key], number / total) for key, number in counted.most_common(MOST_ROWS)]
    head = ("Code", "Outcome", "Status", "Requests", "Share", "Told after, p95", "Retry after, p50", "First seen")
    refused = [one.end_to_end_s for one in view.foreign.records if one.outcome is Outcome.REFUSED]
    lead = ""
    if view.foreign.records:
        lead = page.paragraph(
            f"Of {words.named(len(view.foreign.records), 'request')} with another country's key, {len(refused)} were "
            f"refused, 95% of them within {words.seconds(quantile(np.array(refused), 0.95))}."
        )
    return lead + page.table(head, rows, "By code, most frequent first.", words=2)


def _error_row(key: tuple[str, str, int], records: list[Record], share: float) -> page.Row:
    code, outcome, status = key
    waits = [one.retry_after_s for one in records if one.retry_after_s is not None]
    tone: page.Tone = "bad" if outcome == Outcome.FAILED else "calm"
    return (
        code,
        Cell(outcome, tone),
        str(status or words.NOTHING),
        words.count(len(records)),
        words.share(share),
        words.seconds(quantile(np.array([one.end_to_end_s for one in records]), 0.95)),
        words.seconds(quantile(np.array(waits), 0.5)) if waits else words.NOTHING,
        words.seconds(min(one.ended for one in records)),
    )


def faults(view: View) -> str:
    """Every fault, and how soon the country answered again."""
    if not view.faults:
        return page.remark("Nothing was broken on purpose.")
    rows = [_fault_row(view, number, fault) for number, fault in enumerate(view.faults, 1)][:MOST_ROWS]
    head = ("", "What", "At", "Next finished", "Process back", "Failed after it", "First token p95 after it")
    caption = f"Next finished: any request of the fault's country. After it: within {words.seconds(AFTERMATH_S)}."
    return page.table(head, rows, caption, words=2)


def _fault_row(view: View, number: int, fault: Event) -> page.Row:
    country = str(fault.facts.get("country", ""))
    ours = [one for one in view.requests.records if country in ("", one.country)]
    ends = [one.ended for one in ours if one.outcome is Outcome.FINISHED and one.ended >= fault.at]
    later = [one.at for one in view.faults if one.at > fault.at]
    until = min([fault.at + AFTERMATH_S, *later])
    sent = [one for one in ours if fault.at <= one.intended < until]
    failed = sum(one.outcome is Outcome.FAILED and fault.at <= one.ended < until for one in ours)
    back = [
        one.at
        for one in view.run.events
        if one.kind == "recovery" and abs(float(one.facts.get("fault_at", -1e9)) - fault.at) < 0.01
    ]
    return (
        f"F{number}",
        Cell(fault.what, hint=_hint(fault)),
        words.seconds(fault.at),
        words.seconds(min(ends) - fault.at) if ends else Cell("never", "bad"),
        words.seconds(min(back) - fault.at) if back else words.NOTHING,
        Cell(words.count(failed), "bad" if failed else "calm"),
        words.seconds(quantile(Columns(tuple(sent)).first_token_s, 0.95)),
    )


def _hint(fault: Event) -> str:
    shown = ("country", "target", "pid", "for_s", "error")
    return ", ".join(f"{name} {fault.facts[name]}" for name in shown if fault.facts.get(name) not in (None, ""))


def honesty(view: View) -> str:
    """How late the load generator was, and how much of a core it took."""
    lag = np.array([one.lag_s for one in view.requests.records], float)
    own = [one for one in view.run.samples if one.source == "generator" or one.source.startswith("generator:")]
    if not len(lag) and not own:
        return ""
    behind = max((one.values.get("behind", 0.0) for one in own), default=0.0)
    cpu = quantile(np.array([one.values["cpu"] for one in own if "cpu" in one.values], float), 0.95)
    flying = max((one.values.get("in_flight", 0.0) for one in own), default=0.0)
    return page.facts(
        [
            ("Late in sending", f"p50 {words.seconds(quantile(lag, 0.5))}, p99 {words.seconds(quantile(lag, 0.99))}"),
            ("Latest of all", words.seconds(float(lag.max())) if len(lag) else words.NOTHING),
            ("Overdue at once, at most", words.named(behind, "request")),
            ("In flight at once, at most", words.named(flying, "request")),
            ("Its CPU, p95", f"{words.share(cpu)} of one core"),
        ]
    )


def plan(view: View) -> str:
    """What was to be sent, phase by phase, and where."""
    described = {str(one.get("name")): one for one in view.run.plan.get("scenario", {}).get("phases", ())}
    judged = {str(one["name"]): bool(one.get("judged", True)) for one in view.run.plan.get("phases", ())}
    rows = [
        (
            name,
            words.seconds(begin),
            words.seconds(end),
            "yes" if judged.get(name, True) else "no",
            words.count(sum(one.phase == name for one in view.requests.records)),
            _traffic(described.get(name, {})),
        )
        for begin, end, name in view.phases
    ]
    where = [
        (f"{side} · {code.upper()}", f"{one.get('base_url', '')}, {one.get('model', '')}")
        for (side, code), one in view.targets.items()
    ]
    head = ("Phase", "From", "To", "Judged", "Requests", "Traffic")
    return page.table(head, rows, "Phases.", words=1) + page.facts(where)


def _traffic(phase: Mapping[str, Any]) -> str:
    return "; ".join(_stream(one) for one in phase.get("traffic") or ()) or words.NOTHING


def _stream(stream: Mapping[str, Any]) -> str:
    arrivals: Mapping[str, Any] = stream.get("arrivals") or {}
    rate, load, users = (arrivals.get(name) for name in ("rate", "load", "users"))
    measure = f"{rate:g}/s" if rate else f"{load:g} × capacity" if load else f"{users} users" if users else ""
    end = arrivals.get("until_rate") or arrivals.get("until_load")
    until = f" to {end:g}" if end else ""
    process = "closed loop" if users else str(arrivals.get("process", ""))
    return f"{stream.get('organisations', '')}: {stream.get('kind', '')}, {process} {measure}{until}".strip()
