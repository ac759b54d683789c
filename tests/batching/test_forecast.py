"""What the policy foretells, against what then happens in an engine whose speed it knows."""

from __future__ import annotations

from copy import deepcopy
from random import Random
from statistics import quantiles

import pytest

from serving.batching.jobs import Job, Reason, Refusal, Room
from tests.batching.driver import SLOTS, Engine, job, policy

SEEDS = [1, 2, 3]


def engine(slots: int = SLOTS) -> Engine:
    rng = Random(slots)
    return Engine(
        policy(slots),
        slots,
        lambda free: Room(free, 4096, 4),
        lambda one: min(one.answer_tokens, rng.randint(20, 150)),
    )


def crowd(seed: int, rate: float, promise_s: float, seconds: float = 60.0) -> list[tuple[float, Job]]:
    """Jobs of one organisation that asks for half of everything and of four others, at random times."""
    rng, now = Random(seed), 0.0
    jobs: list[tuple[float, Job]] = []
    while now < seconds:
        now += rng.expovariate(rate)
        name = "flood" if rng.random() < 0.5 else f"org{rng.randrange(4)}"
        one = job(
            str(len(jobs)),
            name,
            prompt_tokens=rng.randint(20, 1000),
            answer_tokens=150,
            arrived=now,
            first_token_by=now + promise_s,
        )
        jobs.append((now, one))
    return jobs


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate", [0.7, 1.5, 4.0])
def test_first_tokens_come_about_when_they_were_foretold(seed: int, rate: float) -> None:
    """As many late as early, to a quarter, and eight of ten within a factor of three, in a calm, a busy and a flooded
    engine."""
    world = engine()
    foretold: dict[str, tuple[float, float]] = {}
    for at, one in crowd(seed, rate, promise_s=15.0):
        world.until(at)
        foretold[one.id] = (world.now, world.policy.first_token_s(one))
        world.offer(one)
    world.drain()
    ratios = [
        (foretold_s + 0.05) / (world.first_token[id] - at + 0.05)
        for id, (at, foretold_s) in foretold.items()
        if id in world.first_token
    ]
    tenths = quantiles(ratios, n=10)
    assert tenths[0] > 1 / 3
    assert tenths[-1] < 3
    assert 0.75 < tenths[4] < 1.25


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("promise_s", [2.0, 8.0])
def test_who_comes_again_after_the_time_it_was_told_is_let_in(seed: int, promise_s: float) -> None:
    """If nobody else came meanwhile. Each refusal is tried in a copy of the world as it was; ends of answers come in
    lumps, hence not every time."""
    world = engine()
    world.length = lambda one: one.answer_tokens
    again: list[Refusal | None] = []
    for at, one in crowd(seed, 4.0, promise_s, seconds=25.0):
        world.until(at)
        refusal = world.offer(one)
        if refusal and refusal.retry_after_s and len(world.refused) % 3 == 0:
            copy = deepcopy(world)
            copy.until(world.now + refusal.retry_after_s)
            again.append(copy.offer(job("again", one.organisation, **_promised(one, copy.now, promise_s))))
    assert len(again) > 10
    assert sum(refusal is None for refusal in again) >= 0.85 * len(again)


@pytest.mark.parametrize("tokens", [800, 1500, 3000])
def test_a_long_prompt_is_told_to_come_when_whole_ones_before_it_are_done(tokens: int) -> None:
    """What an engine has computed of a prompt is not known before its first token."""

    def long(id: str, now: float) -> Job:
        return job(id, prompt_tokens=tokens, answer_tokens=16, arrived=now, first_token_by=now + 8 * tokens * 1e-3)

    def let_in(after_s: float) -> bool:
        copy = deepcopy(world)
        copy.until(world.now + after_s)
        return copy.offer(long("again", copy.now)) is None

    world = engine()
    world.tells_chunks = False
    world.length = lambda one: one.answer_tokens
    told: list[float] = []
    needlessly = 0
    for number in range(30):
        refusal = world.offer(long(str(number), world.now))
        if refusal:
            assert refusal.retry_after_s
            assert let_in(refusal.retry_after_s)
            told.append(refusal.retry_after_s)
            needlessly += let_in(refusal.retry_after_s / 5)
        world.until(world.now + tokens * 0.3e-3)
    assert len(told) > 5
    assert needlessly <= len(told) / 4, "a fifth of the time would have done"


@pytest.mark.parametrize("tokens", [250, 600])
def test_a_burst_of_as_many_organisations_is_let_in_as_can_be_served(tokens: int) -> None:
    """All of them start at once, so that nobody waits before the engine when the next one comes."""
    world = engine(slots=32)
    world.room = lambda free: Room(free, 350, 32)
    for number in range(30):
        one = job(str(number), f"org{number}", prompt_tokens=tokens, answer_tokens=50, first_token_by=3.0)
        if world.offer(one) is None:
            begun = world.policy.next(world.now, world.room(32 - len(world.running)))
            assert begun
            world.start(begun)
    world.drain()
    kept = sum(at <= 3.0 for at in world.first_token.values())
    assert kept >= 0.8 * len(world.first_token)
    assert kept * tokens >= 1000, "an engine does three times as much in that time"
    assert world.refused.keys().isdisjoint(world.first_token)


def _promised(one: Job, now: float, promise_s: float) -> dict[str, float]:
    return {"prompt_tokens": one.prompt_tokens, "answer_tokens": 150, "arrived": now, "first_token_by": now + promise_s}


def test_an_idle_engine_foretells_the_prefill_and_a_step() -> None:
    world = engine()
    one = job("x", prompt_tokens=500)
    assert world.policy.first_token_s(one) == pytest.approx(0.52)
    world.offer(one)
    world.drain()
    assert world.first_token["x"] == pytest.approx(0.52)


def test_where_all_slots_were_taken_at_once_none_is_free_before_they_end() -> None:
    world = engine()
    world.length = lambda one: one.answer_tokens
    for number in range(SLOTS):
        world.offer(job(str(number), answer_tokens=100))
    world.until(1.0)
    foretold = world.now + world.policy.first_token_s(job("next"))
    world.offer(job("next"))
    world.drain()
    assert foretold == pytest.approx(world.first_token["next"], rel=0.1)


def test_a_promise_that_would_only_just_hold_is_not_made() -> None:
    def refusal(caution: float) -> Refusal | None:
        core = policy(caution=caution)
        for number in range(10):
            core.offer(job(str(number), f"org{number}"), 0.0)
        just = core.first_token_s(job("next")) * 1.01
        return core.offer(job("next", first_token_by=just), 0.0)

    assert refusal(caution=1.0) is None
    assert refusal(caution=1.5) is not None


def test_a_cached_prompt_is_foretold_to_be_quick() -> None:
    core = policy()
    whole = core.first_token_s(job("x", prompt_tokens=1000))
    assert core.first_token_s(job("x", prompt_tokens=1000, cached_tokens=900)) < whole / 5


def test_streams_of_one_job_take_as_many_slots() -> None:
    core = policy()
    assert core.offer(job("x", streams=SLOTS - 1), 0.0) is None
    core.next(0.0, Room(SLOTS))
    assert core.running_streams == SLOTS - 1
    assert core.first_token_s(job("next")) < 0.3
    assert core.offer(job("y"), 0.0) is None
    core.next(0.0, Room(1))
    assert core.first_token_s(job("next")) > 0.5


def test_a_retry_is_worth_nothing_for_what_can_never_be() -> None:
    refusal = policy().offer(job("x", prompt_tokens=10_000, first_token_by=2.0), 0.0)
    assert refusal is not None
    assert (refusal.reason, refusal.retry_after_s) == (Reason.IMPOSSIBLE, None)
