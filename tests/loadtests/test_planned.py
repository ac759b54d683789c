"""Faults are planned before a run: in their phase, of what has them, and the same for the same seed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.chaos import faults_of
from loadtests.record import OURS
from loadtests.scenario import Scenario
from loadtests.schedule import Schedule, Span, make
from loadtests.targets import Targets
from tenants.errors import TenantError


def targets() -> Targets:
    countries = [{"code": code, "base_url": "http://127.0.0.1:1/v1", "model": "m"} for code in ("ee", "kr")]
    return Targets.model_validate({"sides": [{"name": side, "countries": countries} for side in (OURS, "other")]})


def scenario(*faults: dict[str, Any], random_faults: int = 0) -> Scenario:
    traffic = [{"organisations": "acme", "arrivals": {"rate": 0.5}}]
    phases = [
        {"name": "calm", "duration_s": 20.0, "traffic": traffic},
        {
            "name": "chaos",
            "duration_s": 40.0,
            "traffic": traffic,
            "faults": list(faults),
            "random_faults": random_faults,
        },
    ]
    described = {"name": "s", "title": "S", "organisations": [{"id": "acme"}], "phases": phases}
    return Scenario.model_validate({**described, "countries": ["ee", "kr"]})


def schedule(described: Scenario, sides: int = 1) -> Schedule:
    found = targets()
    return make(described, found.model_copy(update={"sides": found.sides[:sides]}), 1, {})


def test_faults_are_planned_within_their_phase() -> None:
    described = scenario(
        {"at_s": 20.0, "action": "kill"}, {"at_s": 5.0, "action": "stop", "for_s": 2.0, "country": "kr"}
    )
    first, second = faults_of(schedule(described), described, 1)
    assert (first.at, first.action, first.target, first.country, first.for_s) == (25.0, "stop", "replica", "kr", 2.0)
    assert (second.at, second.action, second.country) == (40.0, "kill", "ee")


def test_with_two_sides_a_fault_comes_in_our_own_slices() -> None:
    described = scenario({"at_s": 20.0, "action": "kill"})
    planned = schedule(described, sides=2)
    (fault,) = faults_of(planned, described, 1)
    mine = [span for span in planned.phases if span.side == OURS and span.begin <= fault.at <= span.end]
    assert {span.name for span in mine} == {"chaos"}
    before = sum(min(span.end, fault.at) - span.begin for span in _ours(planned.phases) if span.begin < fault.at)
    assert before == pytest.approx(20.0)


def _ours(spans: tuple[Span, ...]) -> list[Span]:
    return [span for span in spans if span.side == OURS and span.name == "chaos"]


@pytest.mark.parametrize(
    ("action", "target"),
    [("latency", "client-link"), ("lock", "database"), ("roll-out", "country"), ("kill", "replica")],
)
def test_an_action_that_leaves_no_choice_needs_no_target(action: str, target: str) -> None:
    described = scenario({"at_s": 1.0, "action": action})
    assert faults_of(schedule(described), described, 1)[0].target == target
    kept = Scenario.model_validate_json(described.model_dump_json())
    assert faults_of(schedule(kept), kept, 1)[0].target == target


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ({"at_s": 41.0, "action": "kill"}, "the phase ends after 40 s"),
        ({"at_s": 1.0, "action": "kill", "country": "lv"}, "lv is not among the run's countries"),
        ({"at_s": 1.0, "action": "kill", "target": "client-link"}, "no process"),
        ({"at_s": 1.0, "action": "lock", "target": "gateway"}, "only a database"),
        ({"at_s": 1.0, "action": "stall", "target": "gateway"}, "its target is client-link"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(fault: dict[str, Any], complaint: str) -> None:
    described = scenario(fault)
    with pytest.raises(TenantError, match=complaint) as refused:
        faults_of(schedule(described), described, 1)
    assert refused.value.problems[0].location == "phases.chaos.faults[0]"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20), count=st.integers(1, 20))
def test_random_faults_are_the_seed_s(seed: int, count: int) -> None:
    described = scenario(random_faults=count)
    planned = schedule(described)
    found = faults_of(planned, described, seed)
    assert found == faults_of(planned, described, seed)
    assert found != faults_of(planned, described, seed + 1)
    assert len(found) == count
    assert [one.at for one in found] == sorted(one.at for one in found)
    assert all(20 < one.at < 60 and one.phase == "chaos" for one in found)
    assert all(one.for_s is not None for one in found if one.action in ("stop", "lock"))
