"""Who is let in, who goes next, who is given up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batching.jobs import Account, Job, Reason, Room, Speed
from serving.batching.policy import Policy
from serving.types import ServiceClass
from tests.batching.driver import SPEED, job, policy

WIDE = Room(slots=8)
PREFILL_S = 100 * SPEED.prefill_s + SPEED.step_s
"""First token of a plain job on an idle engine."""


def started(policy: Policy, room: Room = WIDE, now: float = 0.0) -> list[str]:
    ids = []
    while one := policy.next(now, room):
        ids.append(one.id)
    return ids


def letting_in(*jobs: Job, debt: float = 1000.0) -> Policy:
    core = policy(debt=debt)
    for one in jobs:
        assert core.offer(one, 0.0) is None
    return core


def test_an_organisation_s_own_jobs_go_by_due_time_then_in_the_order_in_which_they_came() -> None:
    core = letting_in(job("late", first_token_by=20), job("x", first_token_by=9), job("y", first_token_by=9))
    assert started(core) == ["x", "y", "late"]


def test_jobs_without_a_promise_are_not_overtaken_for_ever() -> None:
    core = letting_in(job("patient"), job("soon", first_token_by=59), job("later", arrived=2, first_token_by=61))
    assert started(core) == ["soon", "patient", "later"]


def test_between_equals_the_one_about_to_miss_goes_first_then_the_cached_one() -> None:
    core = letting_in(
        job("a", "a", first_token_by=9.0),
        job("b", "b", first_token_by=9.5, prompt_tokens=190, cached_tokens=90),
        job("c", "c", first_token_by=1.0),
    )
    assert started(core) == ["c", "b", "a"]


def test_the_least_served_goes_first_however_urgent_another_s_job_is() -> None:
    core = letting_in(
        job("big", "a", prompt_tokens=3000, first_token_by=8.0), job("next", "a", first_token_by=12.0), job("b", "b")
    )
    assert core.next(0.0, WIDE) is not None
    core.served("big", prefill_tokens=3000)
    assert started(core) == ["b", "next"]


def test_a_flood_does_not_take_every_slot_before_its_first_charge() -> None:
    core = letting_in(*(job(f"flood{index}", "flood") for index in range(50)), debt=0)
    for index in range(4):
        assert core.offer(job(f"other{index}", "other"), 0.0) is None
    first = [core.next(0.0, WIDE) for _ in range(8)]
    assert Counter(one.organisation for one in first if one) == {"flood": 4, "other": 4}


def test_a_full_engine_is_given_nothing() -> None:
    assert letting_in(job("x")).next(0.0, Room(slots=0)) is None


def test_beyond_the_prefill_limit_only_newcomers_start_and_only_so_many() -> None:
    room = Room(slots=8, prefill_tokens=1000, prefills=3)
    core = letting_in(job("long", "a", prompt_tokens=5000, first_token_by=9), job("more", "a"))
    for organisation in ("b", "c", "d"):
        assert core.offer(job(organisation, organisation), 0.0) is None
    long, *newcomers = started(core, room)
    assert long == "long"
    assert len(newcomers) == 2
    assert "more" not in newcomers


def test_the_newcomer_rule_lets_a_newcomer_past_a_long_prompt_but_not_its_owner() -> None:
    room = Room(slots=8, prefill_tokens=1000, prefills=2)
    core = letting_in(job("long", "a", prompt_tokens=5000), job("more", "a"))
    assert started(core, room) == ["long"]
    assert core.offer(job("newcomer", "b"), 0.0) is None
    assert started(core, room) == ["newcomer"]
    core.served("long", prefill_tokens=5000)
    assert started(core, room) == ["more"]


def test_a_short_prompt_due_sooner_passes_a_long_one_of_its_own_account_into_the_engine() -> None:
    """Which takes an account's own by due time: outside it would wait for all of the long one."""
    room = Room(slots=8, prefill_tokens=1000, prefills=4)
    full = letting_in(job("long", prompt_tokens=4000, first_token_by=40.0))
    assert started(full, room) == ["long"]
    for number, due in enumerate((10.0, 12.0, 50.0)):
        assert full.offer(job(f"short-{number}", first_token_by=due), 1.0) is None
    assert started(full, room, 1.0) == ["short-0"], "one after the other"
    full.served("short-0", 0, 1)
    assert started(full, room, 1.0) == ["short-1"]
    full.served("short-1", 0, 1)
    assert started(full, room, 1.0) == [], "the long one is due before it"
    full.served("long", 0, 1)
    assert started(full, room, 1.0) == ["short-2"]


def test_expired_work_is_given_back_once_and_never_started() -> None:
    core = letting_in(job("dead", first_token_by=1.0), job("alive", first_token_by=9.0))
    late = 1.0 - PREFILL_S / 2
    assert core.next(late, WIDE) == job("alive", first_token_by=9.0)
    assert [one.id for one in core.expire(late)] == ["dead"]
    assert core.expire(math.inf) == []
    assert core.waiting == 0


def test_who_left_before_it_was_given_back_is_not_given_back() -> None:
    core = letting_in(job("dead", first_token_by=1.0))
    assert core.next(0.99, WIDE) is None
    core.withdrawn("dead")
    assert core.expire(0.99) == []


def test_a_job_is_kept_as_long_as_an_idle_engine_could_serve_it() -> None:
    core = letting_in(job("x", first_token_by=1.0))
    assert core.expire(1.0 - PREFILL_S * 1.01) == []
    assert [one.id for one in core.expire(1.0 - PREFILL_S * 0.99)] == ["x"]


def test_a_faster_engine_saves_what_would_have_expired() -> None:
    core = letting_in(job("x", first_token_by=1.0))
    core.speed = replace(SPEED, prefill_s=SPEED.prefill_s / 100, step_s=0.0)
    assert core.expire(0.99) == []
    assert started(core, now=0.99) == ["x"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"deadline": -1.0}, Reason.EXPIRED),
        ({"first_token_by": 0.0}, Reason.EXPIRED),
        ({"arrived": -5.0, "first_token_by": 0.05}, Reason.EXPIRED),
        ({"first_token_by": 0.05}, Reason.IMPOSSIBLE),
        ({"deadline": 5.0, "prompt_tokens": 10**6}, Reason.IMPOSSIBLE),
        ({"weight": -1.0}, Reason.IMPOSSIBLE),
        ({"weight": 0.0}, Reason.IMPOSSIBLE),
        ({"weight": math.nan}, Reason.IMPOSSIBLE),
        ({"weight": math.inf}, Reason.IMPOSSIBLE),
        ({"prompt_tokens": -1}, Reason.IMPOSSIBLE),
        ({"answer_tokens": 10**12}, Reason.IMPOSSIBLE),
        ({"streams": 0}, Reason.IMPOSSIBLE),
        ({"arrived": math.nan}, Reason.IMPOSSIBLE),
        ({"deadline": math.nan}, Reason.IMPOSSIBLE),
        ({"first_token_by": math.nan}, Reason.IMPOSSIBLE),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], reason: Reason) -> None:
    core = policy()
    refusal = core.offer(job("x", **fields), 0.0)
    assert refusal is not None
    assert refusal.reason is reason
    assert (refusal.retry_after_s is None) == (reason is Reason.IMPOSSIBLE)
    assert (core.waiting, core.refused[reason]) == (0, 1)


@pytest.mark.parametrize("fields", [{"prompt_tokens": 0}, {"answer_tokens": 0}, {"cached_tokens": 500}])
def test_what_costs_nothing_is_taken_to_cost_a_token(fields: dict[str, Any]) -> None:
    core = letting_in(job("x", **fields))
    assert core.outstanding_s > 0
    assert started(core) == ["x"]


def test_an_id_stands_for_one_job_at_a_time() -> None:
    core = letting_in(job("x"))
    assert core.offer(job("x"), 0.0) is not None
    started(core)
    assert core.offer(job("x"), 0.0) is not None
    core.finished("x")
    assert core.offer(job("x"), 0.0) is None


def test_who_floods_is_told_so_and_others_are_still_let_in() -> None:
    core = policy()
    reasons = Counter(
        refusal.reason if (refusal := core.offer(job(f"f{n}", "flood", first_token_by=10.0), 0.0)) else None
        for n in range(500)
        if not started(core, Room(slots=8 - core.running))
    )
    assert set(reasons) == {None, Reason.OVER_SHARE}
    assert core.offer(job("light", "light", first_token_by=10.0), 0.0) is None
    core.served("f0", 100, 50)
    core.finished("f0")
    assert started(core, Room(slots=1))[0] == "light"


def test_when_everybody_comes_at_once_the_engine_is_overloaded() -> None:
    core = policy()
    reasons = [core.offer(job(str(n), f"org{n}", first_token_by=5.0), 0.0) for n in range(300)]
    last = reasons[-1]
    assert last is not None
    assert last.reason is Reason.OVERLOADED


def test_answers_are_expected_as_long_as_the_organisation_s_were() -> None:
    core = policy()
    for n in range(60):
        assert core.offer(job(str(n), answer_tokens=400), 0.0) is None
        started(core)
        core.served(str(n), 100, 40)
        core.finished(str(n))
    assert core.offer(job("usual", answer_tokens=400), 0.0) is None
    assert core.waiting_tokens == pytest.approx(100 + 40, abs=2)
    assert core.offer(job("capped", answer_tokens=10), 0.0) is None
    assert core.waiting_tokens == pytest.approx(100 + 40 + 100 + 10, abs=2)


def test_outstanding_work_falls_as_it_is_served_and_ends_at_nothing() -> None:
    core = letting_in(job("x"), job("y", "b", streams=2))
    whole = core.outstanding_s
    assert whole == pytest.approx(200 * SPEED.prefill_s + 150 * SPEED.answer_s)
    started(core)
    assert core.outstanding_s == pytest.approx(whole)
    core.served("x", 100, 10)
    assert core.outstanding_s == pytest.approx(whole - 100 * SPEED.prefill_s - 10 * SPEED.answer_s)
    core.finished("x")
    core.withdrawn("y")
    assert core.outstanding_s == 0.0
    assert core.running == 0


def test_a_speed_that_cannot_be_is_left_unset() -> None:
    core = policy()
    for wrong in (math.nan, math.inf, -1.0):
        core.speed = replace(SPEED, prefill_s=wrong)
        assert core.speed == SPEED
    with pytest.raises(ValueError, match="slot"):
        Policy(Speed(1e-3, 1e-3, slots=0))


numbers = st.one_of(st.integers(-2, 3000), st.sampled_from([math.nan, math.inf, -math.inf]))
times = st.one_of(st.floats(-10, 100), st.sampled_from([math.nan, math.inf, -math.inf]))
classes = st.sampled_from(ServiceClass)
ids = st.sampled_from("abcdefghij")


@st.composite
def wild_jobs(draw: st.DrawFn) -> Job:
    return Job(
        id=draw(ids),
        organisation=draw(st.sampled_from("xyz")),
        service_class=draw(classes),
        weight=draw(st.one_of(st.floats(0.1, 10), st.sampled_from([0.0, -1.0, math.nan]))),
        prompt_tokens=draw(numbers),  # type: ignore[arg-type] # a driver's mistake must not end its loop
        cached_tokens=draw(numbers),  # type: ignore[arg-type]
        answer_tokens=draw(numbers),  # type: ignore[arg-type]
        arrived=draw(times),
        first_token_by=draw(times),
        deadline=draw(times),
        streams=draw(st.integers(-1, 3)),
    )


rooms = st.builds(Room, slots=st.integers(-1, 4), prefill_tokens=st.integers(0, 3000), prefills=st.integers(0, 3))
moves = st.one_of(
    st.tuples(st.just("offer"), wild_jobs(), times),
    st.tuples(st.just("next"), rooms, times),
    st.tuples(st.just("expire"), st.none(), times),
    st.tuples(st.just("served"), st.tuples(ids, numbers, numbers), times),
    st.tuples(st.sampled_from(["finished", "withdrawn"]), ids, times),
)


@given(st.lists(moves, max_size=60))
@settings(max_examples=150, deadline=None)
def test_every_job_ends_as_exactly_one_thing_whatever_a_driver_says(steps: list[tuple[str, object, float]]) -> None:
    core = policy()
    waiting: set[str] = set()
    running: set[str] = set()
    for move, what, now in steps:
        if isinstance(what, Job):
            known = what.id in waiting | running
            if core.offer(what, now) is None:
                assert not known
                waiting.add(what.id)
        elif isinstance(what, Room):
            if one := core.next(now, what):
                waiting.remove(one.id)
                running.add(one.id)
        elif move == "expire":
            for one in core.expire(now):
                waiting.remove(one.id)
        elif isinstance(what, tuple):
            core.served(*what)
        elif isinstance(what, str):
            leave: Callable[[str], None] = getattr(core, move)
            leave(what)
            waiting.discard(what)
            running.discard(what)
        assert core.running == len(running)
        assert core.waiting <= len(waiting)
        assert 0 <= core.outstanding_s < math.inf
    for one in core.expire(now=0.0):
        waiting.remove(one.id)
    assert core.waiting == len(waiting)
    for id in waiting | running:
        core.withdrawn(id)
    assert (core.waiting, core.running, core.waiting_tokens, core.outstanding_s) == (0, 0, 0, 0.0)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 3000), st.integers(1, 4)), min_size=1), rooms)
@settings(max_examples=100, deadline=None)
def test_an_open_room_never_stays_empty_while_something_waits(jobs: list[tuple[str, int, int]], room: Room) -> None:
    core = policy()
    for number, (organisation, tokens, streams) in enumerate(jobs):
        core.offer(job(str(number), organisation, prompt_tokens=tokens, streams=streams), 0.0)
    unfinished: dict[str, list[int]] = {}
    while core.waiting:
        left = {organisation for organisation, *_ in jobs if core._backlog.of(Account(organisation)).jobs}
        tokens = sum(map(sum, unfinished.values()))
        count = sum(map(len, unfinished.values()))
        open_to_all = room.slots > 0 and tokens < room.prefill_tokens
        open_to_newcomers = room.slots > 0 and count < room.prefills and left - set(unfinished)
        one = core.next(0.0, room)
        assert (one is not None) == bool(open_to_all or open_to_newcomers)
        if one is None:
            break
        assert open_to_all or one.organisation not in unfinished
        unfinished.setdefault(one.organisation, []).append(one.prefill_tokens)
