"""What organisations get beside each other, in an engine in virtual time."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batching.jobs import BATCH_SHARE, Account, Job, Room
from serving.types import ServiceClass
from tests.batching.driver import SLOTS, Engine, job, policy

DEBT = 300.0
weights = st.sampled_from([0.5, 1.0, 2.0, 5.0])
sizes = st.tuples(st.integers(1, 600), st.integers(1, 80))


def fill(engine: Engine, name: str, count: int, **fields: object) -> None:
    for number in range(count):
        assert engine.offer(job(f"{name}{number}", name, **fields)) is None


def half(one: Job) -> int:
    """Answers that end sooner than they were allowed to."""
    return 1 + one.answer_tokens // 2


def widest_drift(seen: list[dict[str, float]], one: str, other: str) -> float:
    """The largest difference between what two got over any interval: that of the difference's extremes."""
    gaps = [0.0, *(each.get(one, 0.0) - each.get(other, 0.0) for each in seen)]
    return max(gaps) - min(gaps)


@given(st.lists(st.tuples(weights, sizes), min_size=2, max_size=4), st.sampled_from([300, 2048]), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_two_that_both_have_something_waiting_are_served_alike_over_any_time(
    organisations: list[tuple[float, tuple[int, int]]], limit: int, slots: int
) -> None:
    """The first is always about to miss its promises, which must not get it more than the debt."""
    engine = Engine(policy(slots, debt=DEBT), slots, lambda free: Room(free, limit, 4), half)
    seen = []
    for step in range(120):
        for number, (weight, (prompt, answer)) in enumerate(organisations):
            for spare in range(2 * slots - engine.policy._backlog.of(Account(str(number))).jobs):
                id = f"{number}.{step}.{spare}"
                due = math.inf if number else 1e6
                one = job(
                    id, str(number), weight=weight, prompt_tokens=prompt, answer_tokens=answer, first_token_by=due
                )
                assert engine.offer(one) is None
        engine.step()
        seen.append({account.organisation: history[-1][1] for account, history in engine.received.items()})
    most = max(prompt + 2 * answer for _, (prompt, answer) in organisations) * slots
    least = min(weight for weight, _ in organisations)
    for other in range(1, len(organisations)):
        assert widest_drift(seen, "0", str(other)) <= 2 * (DEBT + most / least)


def test_shares_follow_weights_over_a_long_time() -> None:
    engine = Engine(policy(), room=lambda free: Room(free, 2048, 4))
    rng = Random(5)
    for name, weight in (("one", 1.0), ("three", 3.0)):
        for number in range(600):
            prompt, answer = rng.randint(10, 400), rng.randint(5, 100)
            one = job(f"{name}{number}", name, weight=weight, prompt_tokens=prompt, answer_tokens=answer)
            assert engine.offer(one) is None
    engine.until(60.0)
    assert 3 * engine.got(Account("three")) / engine.got(Account("one")) == pytest.approx(3.0, rel=0.1)


def test_batch_work_neither_starves_nor_disturbs() -> None:
    engine = Engine(policy(debt=DEBT), room=lambda free: Room(free, 2048, 4))
    fill(engine, "night", 50, service_class=ServiceClass.BATCH)
    fill(engine, "day", 900)
    engine.until(90.0)
    batch = engine.got(Account("night", batch=True)) * BATCH_SHARE
    assert engine.policy._backlog.of(Account("day")).jobs
    assert sum(one.organisation == "night" for one in engine.finished) >= 3
    assert batch / (batch + engine.got(Account("day"))) == pytest.approx(BATCH_SHARE, abs=0.03)


def test_batch_work_has_the_engine_to_itself_when_nobody_else_is_there() -> None:
    engine = Engine(policy(), room=Room)
    fill(engine, "night", SLOTS, service_class=ServiceClass.BATCH)
    engine.step()
    assert len(engine.running) == SLOTS


def test_everybody_is_served_beside_many_and_beside_one_that_never_stops() -> None:
    engine = Engine(policy(), room=lambda free: Room(free, 1024, 2))
    fill(engine, "flood", 400, prompt_tokens=800, weight=10.0)
    for number in range(20):
        fill(engine, f"org{number}", 2)
    engine.until(60.0)
    assert {one.organisation for one in engine.finished} == {"flood", *(f"org{number}" for number in range(20))}


def test_who_was_idle_gets_no_more_than_others_from_then_on() -> None:
    engine = Engine(policy(debt=DEBT), room=lambda free: Room(free, 2048, 4))
    fill(engine, "idle", 1)
    fill(engine, "steady", 800)
    engine.until(30.0)
    earlier = {name: engine.got(Account(name)) for name in ("idle", "steady")}
    for number in range(400):
        assert engine.offer(job(f"back{number}", "idle", arrived=engine.now)) is None
    engine.until(60.0)
    got = {name: engine.got(Account(name)) - earlier[name] for name in earlier}
    assert got["idle"] / got["steady"] == pytest.approx(1.0, abs=0.15)


def test_a_light_organisation_goes_ahead_of_a_flood_and_keeps_its_promise() -> None:
    engine = Engine(policy(), room=lambda free: Room(free, 2048, 4))
    light: list[Job] = []
    for second in range(40):
        engine.until(float(second))
        for number in range(10):
            engine.offer(_fresh(engine, f"flood{second}.{number}", "flood", prompt_tokens=600))
        if second % 4 == 3:
            one = _fresh(engine, f"light{second}", "light")
            assert engine.offer(one) is None, "a light organisation was turned away for another's flood"
            light.append(one)
    engine.drain()
    assert all(engine.first_token[one.id] <= one.first_token_by for one in light)
    assert any(refusal.reason == "over_share" for refusal in engine.refused.values())


def _fresh(engine: Engine, id: str, organisation: str, **fields: object) -> Job:
    return job(id, organisation, arrived=engine.now, first_token_by=engine.now + 5.0, **fields)
