"""The plan: what would be done about each country, and why some of it is refused. Pure and deterministic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from serving.engine.arguments import device
from serving.planning.changes import changes
from serving.planning.drift import GONE, drift
from serving.planning.nouns import (
    Action,
    Applied,
    CountryPlan,
    How,
    Observed,
    Part,
    Plan,
    Refusal,
    Running,
    Step,
)
from serving.planning.parts import Devices, parts
from tenants.country import Country


def plan(
    files: Mapping[str, Country],
    codes: Iterable[str],
    observed: Observed,
    refusals: Iterable[Refusal] = (),
    runs_on: Devices = device,
) -> Plan:
    """
    Args:
        files: every country that has a readable file.
        codes: the countries to plan for. One without a file, and without a refusal, is removed.
        refusals: what is refused for reasons of the files and of the disk; those of the cluster are found here.
    """
    found = list(refusals)
    unreadable = {each.country for each in found} - files.keys()
    planned = tuple(
        _country(code, files.get(code), observed, runs_on) for code in dict.fromkeys(codes) if code not in unreadable
    )
    found += _cells(files, planned, observed)
    return Plan(planned, tuple(sorted(found, key=lambda each: (each.country, each.location, each.rule, each.reason))))


def _country(code: str, country: Country | None, observed: Observed, runs_on: Devices) -> CountryPlan:
    applied = observed.applied.get(code)
    if country is None:
        return _removal(code, applied, observed)
    after = parts(country, runs_on)
    same = CountryPlan(
        country=code,
        name=country.english_name,
        address=country.address,
        isolation=country.isolation,
        action=Action.NONE,
        digest=country.policy_digest,
        former=None if applied is None else applied.digest,
    )
    if code not in observed.applied:
        return replace(same, action=Action.ADD, steps=steps_between({}, after))
    found = replace(same, drift=tuple(drift(code, same.digest, observed)))
    if applied is None:
        return replace(found, action=Action.CHANGE, steps=steps_between(_unlike(after), after))
    if applied.digest != same.digest:
        differ = changes(applied.policy, country.model_dump(mode="json"))
        return replace(found, action=Action.CHANGE, changes=differ, steps=steps_between(applied.parts, after))
    if _broken(code, observed):
        return replace(found, action=Action.REPAIR, steps=steps_between({}, after))
    return found


def _unlike(parts: Mapping[str, Part]) -> dict[str, Part]:
    """Where nobody knows what processes were made from, all are replaced: an empty digest equals none."""
    return {name: replace(part, digest="") for name, part in parts.items()}


def _removal(code: str, applied: Applied | None, observed: Observed) -> CountryPlan:
    policy = {} if applied is None else applied.policy
    return CountryPlan(
        country=code,
        name=str(policy.get("english_name", code)),
        address="",
        isolation=str(policy.get("isolation", "")),
        action=Action.REMOVE if code in observed.applied else Action.NONE,
        digest=None,
        former=None if applied is None else applied.digest,
        steps=steps_between({} if applied is None else applied.parts, {}),
        drift=tuple(drift(code, None, observed)) if code in observed.applied else (),
    )


def _broken(code: str, observed: Observed) -> bool:
    """Whether it takes more than Serve's own healing to have the country run."""
    nodeless = not any(node.country == code for node in observed.nodes)
    return observed.answers and (nodeless or observed.running.get(code, Running()).phase in GONE)


def steps_between(before: Mapping[str, Part], after: Mapping[str, Part]) -> tuple[Step, ...]:
    """What happens to each deployment, the gateway's first as it stands first in ``after``."""
    both = [(name, before.get(name), after.get(name)) for name in dict.fromkeys((*after, *before))]
    return tuple(
        Step(name, how, was.replicas if was else 0, is_.replicas if is_ else 0)
        for name, was, is_ in both
        if (how := _how(was, is_)) is not None
    )


def _how(was: Part | None, is_: Part | None) -> How | None:
    if was is None:
        return How.START
    if is_ is None:
        return How.END
    if was.digest != is_.digest:
        return How.ROLL if is_.spare or is_.replicas > 1 else How.PAUSE
    return None if was.replicas == is_.replicas else How.SCALE


def _cells(files: Mapping[str, Country], planned: Iterable[CountryPlan], observed: Observed) -> Iterator[Refusal]:
    """A cell has a cluster to itself: whoever else would be in it when the plan is done is a reason to refuse."""
    actions = {each.country: each.action for each in planned}
    labels = {node.country for node in observed.nodes} - {""}
    there = {*observed.applied, *labels, *actions} - {code for code, act in actions.items() if act is Action.REMOVE}
    for code in sorted(there & actions.keys()):
        for cell in sorted(there):
            one = files.get(cell)
            others = there - {cell}
            # A newcomer is refused beside a cell, and so is a cell beside anybody.
            if one is not None and one.isolation == "cell" and others and code in (cell, *_new(actions)):
                yield Refusal(
                    code,
                    "isolation",
                    "R2",
                    f"{cell} is a cell, and would not be alone in its cluster: {', '.join(sorted(others))} "
                    f"{'is' if len(others) == 1 else 'are'} there too",
                    f"give the cell a home, and so a cluster, of its own: DOMICILE_HOME=… domicile up --country {cell}",
                )


def _new(actions: Mapping[str, Action]) -> set[str]:
    return {code for code, action in actions.items() if action is Action.ADD}
