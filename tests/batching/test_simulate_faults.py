"""Replicas that die or stall in a simulation, deadlines, and closed loops."""

from __future__ import annotations

from itertools import pairwise

import pytest

from serving.batching.simulation.requests import UNAVAILABLE, Ending
from tests.batching.simulated import Watched, ran, scenario, traffic

DEATH = {"action": "die", "at_s": 4.0, "for_s": 3.0, "replica": 0}
THREE = [{"code": "ee", "replicas": 3}]
BUSY = [traffic(rate=8.0, output=40)]


def endings(country: Watched) -> set[str]:
    return {request.ending for request in country.requests}


@pytest.mark.parametrize("scheduler", ["fair", "vllm"])
def test_others_of_the_country_go_on_with_what_a_dead_replica_had(scheduler: str) -> None:
    country = ran(scenario(scheduler=scheduler, countries=THREE, traffic=BUSY, faults=[DEATH]))
    moved = [request for request in country.requests if request.lost]
    assert moved
    assert endings(country) == {Ending.SERVED}
    # Somebody was in the middle of an answer: its tokens stay, and are part of the prompt elsewhere.
    assert any(request.prefilled > request.length.prompt for request in moved)
    assert all(request.answered == request.length.output for request in moved)


def test_what_a_dead_replica_had_fails_where_nobody_goes_on_with_it() -> None:
    country = ran(scenario(countries=THREE, traffic=BUSY, faults=[DEATH], lost="fail"))
    failed = [request for request in country.requests if request.ending == Ending.FAILED]
    assert failed
    assert {request.ended for request in failed} == {4.0}
    assert endings(country) == {Ending.SERVED, Ending.FAILED}


def test_a_country_without_a_replica_says_so_until_another_has_taken_its_place() -> None:
    country = ran(scenario(traffic=BUSY, faults=[DEATH], organisations=[{"id": "acme"}]))
    refused = [request for request in country.requests if request.ending == UNAVAILABLE]
    away = [request for request in country.requests if 4.0 < request.arrived < 7.0]
    assert away
    assert set(away) <= set(refused)
    assert all(request.arrived < 7.0 for request in refused)
    assert any(request.ending == Ending.SERVED for request in country.requests if request.arrived > 7.0)
    assert country.alive_s == pytest.approx(7.0)


def test_a_request_that_has_lost_two_replicas_is_given_up() -> None:
    both = [{"action": "die", "at_s": at, "for_s": 100.0, "replica": place} for at, place in ((2.0, 0), (2.1, 1))]
    country = ran(scenario(countries=[{"code": "ee", "replicas": 2}], traffic=BUSY, faults=both))
    twice = [request for request in country.requests if request.lost == 2]
    assert twice
    assert {request.ending for request in twice} == {Ending.FAILED}


def test_a_stall_delays_what_is_there_and_nothing_else() -> None:
    stall = {"action": "stall", "at_s": 4.0, "for_s": 1.0}
    calm = ran(scenario(scheduler="vllm", traffic=BUSY))
    stalled = ran(scenario(scheduler="vllm", traffic=BUSY, faults=[stall]))
    assert endings(stalled) == {Ending.SERVED}
    late = [(one.ended or 0) - (same.ended or 0) for one, same in zip(stalled.requests, calm.requests, strict=True)]
    before = [gap for gap, one in zip(late, calm.requests, strict=True) if (one.ended or 0) <= 4.0]
    assert before
    assert set(before) == {0.0}
    assert 1.0 <= max(late) < 3.0


def test_an_idle_engine_that_stalls_begins_after_it() -> None:
    described = scenario(
        duration_s=3.0,
        organisations=[{"id": "acme"}],
        traffic=[traffic(process="constant", rate=1.0, begins_s=1.0, ends_s=2.0)],
        faults=[{"action": "stall", "at_s": 0.5, "for_s": 5.0}],
        scheduler="vllm",
    )
    (request,) = ran(described).requests
    assert request.first_token == pytest.approx(5.5 + 0.02 + 50 * 1e-3)


def test_a_stall_within_a_longer_one_shortens_nothing() -> None:
    described = scenario(
        duration_s=3.0,
        organisations=[{"id": "acme"}],
        traffic=[traffic(process="constant", rate=1.0, begins_s=1.0, ends_s=2.0)],
        faults=[{"action": "stall", "at_s": 0.2, "for_s": 5.0}, {"action": "stall", "at_s": 0.5, "for_s": 0.1}],
        scheduler="vllm",
    )
    (request,) = ran(described).requests
    assert request.first_token == pytest.approx(5.2 + 0.02 + 50 * 1e-3)


@pytest.mark.parametrize("scheduler", ["fair", "vllm"])
def test_a_deadline_ends_what_is_not_done(scheduler: str) -> None:
    slow = [{"code": "ee", "slo": {"first_token_s": 1.0, "request_s": 1.5}}]
    country = ran(scenario(scheduler=scheduler, countries=slow, traffic=[traffic(rate=2.0, output=200)]))
    assert Ending.EXPIRED in endings(country)
    for request in country.requests:
        if request.ending == Ending.EXPIRED:
            assert request.answered < 200
            # It is noticed between two steps.
            assert 0 <= (request.ended or 0) - request.deadline < 5.0


def test_users_ask_again_when_they_were_answered_and_not_before() -> None:
    country = ran(scenario(traffic=[traffic(users=5, think_s=0.1)]))
    assert country.most_at_once <= 5
    asked: dict[int, list[tuple[float, float]]] = {}
    for request in country.requests:
        asked.setdefault(request.user, []).append((request.arrived, request.ended or 0))
    assert len(asked) == 5
    for turns in asked.values():
        assert len(turns) > 3
        for (_, ended), (arrived, _) in pairwise(turns):
            assert arrived >= ended + 0.1 - 1e-9
