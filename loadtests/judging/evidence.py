"""The part of a run that its verdict is made of: which requests count, from when on, and against which promise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from loadtests.judging.statistics import warm_up
from loadtests.record import OURS, Event, Kind, Outcome, Record, Run
from loadtests.scenario import Scenario
from loadtests.targets import Country, Targets
from tenants.country import Slo

CAPACITY = "capacity"
"""The phase whose requests measure the capacity: no part of the test."""

Span = tuple[float, float]


@dataclass(frozen=True)
class Evidence:
    """What a run shows of the side under test.

    Promises are held against judged phases, from the end of the warm-up on. The warm-up is looked for in the run's
    first phase only, country by country, and nothing is cut where that phase is not judged: a change of latency
    later on, as between two phases, is what a run is made to show.
    """

    run: Run

    @cached_property
    def scenario(self) -> Scenario:
        return Scenario.model_validate_json(orjson.dumps(self.run.plan["scenario"]))

    @cached_property
    def countries(self) -> Mapping[str, Country]:
        targets = Targets.model_validate_json(orjson.dumps(self.run.plan["targets"]))
        return {one.code: one for side in targets.sides if side.name == OURS for one in side.countries}

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """In the order in which they were to be sent, whatever became of them."""
        ours = (one for one in self.run.records if one.side == OURS and one.phase != CAPACITY)
        return tuple(sorted(ours, key=lambda one: (one.intended, one.serial)))

    @cached_property
    def interruption(self) -> Event | None:
        return next((one for one in self.run.events if one.kind.startswith("interrupt")), None)

    @cached_property
    def phases(self) -> tuple[Mapping[str, Any], ...]:
        """Spans of our side, in time order."""
        ours = (one for one in self.run.plan.get("phases", ()) if one["side"] == OURS)
        return tuple(sorted(ours, key=lambda one: float(one["begin"])))

    @cached_property
    def judged_phases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one["name"] for one in self.phases if one["judged"]))

    @cached_property
    def calm_phases(self) -> frozenset[str]:
        """Those in which nothing goes wrong on purpose, or which are judged all the same."""
        disturbed = {one.name for one in self.scenario.phases if one.faults or one.random_faults}
        return frozenset(one["name"] for one in self.phases if one["judged"] or one["name"] not in disturbed)

    @cached_property
    def warm_from(self) -> Mapping[str, float]:
        """When each country's warm-up was over, in seconds since the run began."""
        found = {code: float(self.phases[0]["begin"]) if self.phases else 0.0 for code in self.countries}
        if not self.phases or not self.phases[0]["judged"]:
            return found
        for code in found:
            series = [
                one
                for one in self.records
                if one.country == code and one.phase == self.phases[0]["name"] and first_token_s(one) is not None
            ]
            cut = warm_up([first_token_s(one) or 0.0 for one in series])
            if cut:
                found[code] = series[cut].intended
        return found

    @cached_property
    def judged(self) -> tuple[Record, ...]:
        """What the promises are held against. Foreign keys are promised nothing."""
        return tuple(
            one
            for one in self.records
            if one.phase in self.judged_phases
            and one.kind is not Kind.FOREIGN
            and one.intended >= self.warm_from.get(one.country, 0.0)
        )

    @cached_property
    def groups(self) -> Mapping[tuple[str, str], tuple[Record, ...]]:
        """The judged requests by country and service class."""
        found: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for one in self.judged:
            found[one.country, one.service_class].append(one)
        return {key: tuple(found[key]) for key in sorted(found)}

    def spans(self, phases: Iterable[str], country: str) -> Iterator[Span]:
        """The stretches of these phases, without the country's warm-up and what an interruption left undone."""
        wanted = set(phases)
        until = self.interruption.at if self.interruption else float("inf")
        for one in self.phases:
            begin, end = max(float(one["begin"]), self.warm_from[country]), min(float(one["end"]), until)
            if one["name"] in wanted and end > begin:
                yield begin, end

    def waited_s(self, record: Record) -> float | None:
        """The time to the first token, ``None`` where that says nothing.

        Who waited in vain for longer than was promised waited at least until it was given up; that a request failed
        or was left sooner says nothing about the first token, and neither does a refusal.
        """
        if not streamed(record):
            return None
        if record.first is not None:
            return record.first_token_s
        given_up = record.outcome in (Outcome.FAILED, Outcome.ABORTED)
        promised = self.promise(record.country, record.service_class).first_token_s
        return record.end_to_end_s if given_up and record.end_to_end_s > promised else None

    def promise(self, country: str, service_class: str) -> Slo:
        """What the class was promised; the default promise where the plan knows no such country."""
        known = self.countries.get(country)
        return (known.slo if known else Slo()).promise(service_class)


def streamed(record: Record) -> bool:
    """Whether the first token could be told from the end."""
    return record.kind is not Kind.CHAT_PLAIN


def first_token_s(record: Record) -> float | None:
    """The time to the first token of an answer that was streamed."""
    return record.first_token_s if streamed(record) else None


def keeps(record: Record, promise: Slo) -> bool:
    """Whether the request finished within what was promised.

    Whoever does not stream cannot see tokens come, so that only the whole answer has a deadline. Refused and failed
    requests keep nothing: a service that refuses everybody keeps no promise, however fast it is.
    """
    if record.outcome is not Outcome.FINISHED or record.end_to_end_s > promise.request_s:
        return False
    if not streamed(record):
        return True
    first, inter = record.first_token_s, record.inter_token_s
    return first is not None and first <= promise.first_token_s and (inter is None or inter <= promise.inter_token_s)


def counts(record: Record, promise: Slo) -> bool:
    """Whether the request counts for the goodput.

    What the load test left itself does not, unless the promise was broken by then: else a service that hangs would
    be excused by the end of the run.
    """
    if record.outcome is not Outcome.ABORTED:
        return True
    waited = record.end_to_end_s if record.first is None else record.first - record.intended
    return streamed(record) and waited > promise.first_token_s
