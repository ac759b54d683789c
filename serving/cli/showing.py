"""A plan for people: what changes, what that does, what has drifted, and what is refused and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from pydantic import JsonValue
from rich.console import Console
from rich.markup import escape

from serving.cli.output import console
from serving.planning.nouns import Action, Change, CountryPlan, Drift, How, Plan, Refusal, Step
from tenants.rules import FLOOR, RULES

_SIGNS = {
    Action.NONE: "[dim] [/]",
    Action.ADD: "[green]+[/]",
    Action.CHANGE: "[yellow]~[/]",
    Action.REPAIR: "[yellow]![/]",
    Action.REMOVE: "[red]-[/]",
}
_LONGEST = 48


def show(plan: Plan, strays: Sequence[Drift], to: Console = console) -> None:
    """All of it, the refusals last since they are what to act on."""
    for line in _lines(plan, strays):
        to.print(line, soft_wrap=True)


def _lines(plan: Plan, strays: Sequence[Drift]) -> Iterator[str]:
    """Rich's markup, a line each."""
    for one in plan.countries:
        yield from _country(one)
    if strays:
        yield "[bold]in the cluster[/]"
        yield from _drift(strays)
    if plan.refusals:
        yield "[bold red]refused[/]"
        for each in plan.refusals:
            yield from _refusal(each)
    yield f"[bold]{'refused, nothing can be applied' if plan.refused else summary(plan)}[/]"


def summary(plan: Plan) -> str:
    """How many of what."""
    if not plan.countries:
        return "no country runs: name one with --country"
    counts = {action: sum(each.action is action for each in plan.countries) for action in Action}
    told = [f"{counts[action]} to {action.value}" for action in Action if action is not Action.NONE and counts[action]]
    return ", ".join(told) if told else "nothing to change"


def _country(one: CountryPlan) -> Iterator[str]:
    where = "  ".join(filter(None, (one.address, one.isolation)))
    yield f"{_SIGNS[one.action]} [bold]{escape(one.name)}[/] ({one.country})  {escape(where)}"
    width = max((len(each.path) for each in one.changes), default=0)
    for change in one.changes:
        yield f"    {escape(change.path):{width + escape(change.path).count(chr(92))}}  {escape(_values(change))}"
    yield from _steps(one.steps)
    yield from _drift(one.drift)


def _steps(steps: Sequence[Step]) -> Iterator[str]:
    width = max((len(each.deployment) for each in steps), default=0)
    for step in steps:
        yield f"  [dim]→[/] {step.deployment:{width}}  {_what(step)}"


def _what(step: Step) -> str:
    processes = "process" if step.after == 1 else "processes"
    return {
        How.START: f"{step.after} {processes} started",
        How.SCALE: f"{step.before} → {step.after} {processes}, the others left alone; streams go on",
        How.ROLL: "replaced one by one; streams go on",
        How.PAUSE: "its only process replaced: streams finish, new requests get 503 until the new one is ready",
        How.END: "ended, once its streams are finished",
    }[step.how]


def _drift(drift: Iterable[Drift]) -> Iterator[str]:
    for each in drift:
        yield f"  [yellow]drift[/]  {escape(each.what)}"


def _refusal(one: Refusal) -> Iterator[str]:
    rule = "floor" if one.rule == FLOOR else one.rule
    where = ": ".join(filter(None, (one.country, one.location)))
    yield f"  [red]{rule or 'wrong':6}[/] {escape(where)}"
    yield f"         {escape(one.reason)}"
    if one.rule:
        yield f"         [dim]{escape(rule)}: {escape(RULES[one.rule])}[/]"
    if one.remedy:
        yield f"         → {escape(one.remedy)}"


def _values(change: Change) -> str:
    return f"{_short(change.before)} → {_short(change.after)}"


def _short(value: JsonValue) -> str:
    if value is None:
        return "unset"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
