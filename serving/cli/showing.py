"""A plan for people: what changes, what that does, what has drifted, and what is refused and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from pydantic import JsonValue
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


def show(plan: Plan, strays: Sequence[Drift]) -> None:
    """All of it, the refusals last since they are what to act on."""
    for one in plan.countries:
        _country(one)
    if strays:
        _line("[bold]in the cluster[/]")
        _drift(strays)
    if plan.refusals:
        _line("[bold red]refused[/]")
        for each in plan.refusals:
            _refusal(each)
    _line(f"[bold]{'refused, nothing can be applied' if plan.refused else summary(plan)}[/]")


def summary(plan: Plan) -> str:
    """How many of what."""
    if not plan.countries:
        return "no country runs: name one with --country"
    counts = {action: sum(each.action is action for each in plan.countries) for action in Action}
    told = [f"{counts[action]} to {action.value}" for action in Action if action is not Action.NONE and counts[action]]
    return ", ".join(told) if told else "nothing to change"


def _country(one: CountryPlan) -> None:
    where = "  ".join(filter(None, (one.address, one.isolation)))
    _line(f"{_SIGNS[one.action]} [bold]{escape(one.name)}[/] ({one.country})  {escape(where)}")
    width = max((len(each.path) for each in one.changes), default=0)
    for change in one.changes:
        _line(f"    {escape(change.path):{width + escape(change.path).count(chr(92))}}  {escape(_values(change))}")
    _steps(one.steps)
    _drift(one.drift)


def _steps(steps: Sequence[Step]) -> None:
    width = max((len(each.deployment) for each in steps), default=0)
    for step in steps:
        _line(f"  [dim]→[/] {step.deployment:{width}}  {_what(step)}")


def _what(step: Step) -> str:
    processes = "process" if step.after == 1 else "processes"
    return {
        How.START: f"{step.after} {processes} started",
        How.SCALE: f"{step.before} → {step.after} {processes}, the others left alone; streams go on",
        How.ROLL: "replaced one by one; streams go on",
        How.PAUSE: "its only process replaced: streams finish, new requests get 503 until the new one is ready",
        How.END: "ended, once its streams are finished",
    }[step.how]


def _drift(drift: Iterable[Drift]) -> None:
    for each in drift:
        _line(f"  [yellow]drift[/]  {escape(each.what)}")


def _refusal(one: Refusal) -> None:
    rule = "floor" if one.rule == FLOOR else one.rule
    where = ": ".join(filter(None, (one.country, one.location)))
    _line(f"  [red]{rule or 'wrong':6}[/] {escape(where)}")
    _line(f"         {escape(one.reason)}")
    if one.rule:
        _line(f"         [dim]{escape(rule)}: {escape(RULES[one.rule])}[/]")
    if one.remedy:
        _line(f"         → {escape(one.remedy)}")


def _values(change: Change) -> str:
    return f"{_short(change.before)} → {_short(change.after)}"


def _short(value: JsonValue) -> str:
    if value is None:
        return "unset"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _line(markup: str) -> None:
    console.print(markup, soft_wrap=True)
