"""The pacer, with a clock and an engine that the test holds in its hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from serving.batching.capacity import Capacity
from serving.batching.jobs import Job, Reason, Speed
from serving.batching.pacer import Pacer, Refused
from serving.batching.policy import Policy
from serving.types import ServiceClass

SPEED = Speed(prefill_s=1e-3, answer_s=5e-3, slots=2)
ROOMY = Capacity(slots=2, ahead_tokens=1000, speed=SPEED)


class House:
    def __init__(self) -> None:
        self.now = 100.0
        self.capacity = ROOMY
        self.policy = Policy(SPEED)
        self.crowds: list[int] = []
        self.pacer = Pacer(self.policy, lambda: self.capacity, lambda: self.now, self.crowds.append)
        self._serial = 0

    def job(self, organisation: str = "acme", prompt: int = 10, answer: int = 10, within_s: float = 60.0) -> Job:
        self._serial += 1
        return Job(
            str(self._serial),
            organisation,
            ServiceClass.STANDARD,
            1.0,
            prompt,
            0,
            answer,
            self.now,
            self.now + within_s,
            self.now + 600,
        )

    @asynccontextmanager
    async def begun(self, job: Job) -> AsyncIterator[tuple[asyncio.Task[None], asyncio.Event, asyncio.Event]]:
        """A request that holds its turn until it is told to end."""
        served, end = asyncio.Event(), asyncio.Event()

        async def request() -> None:
            async with self.pacer.turn(job) as turn:
                served.set()
                await end.wait()
                turn.answered(5)
                turn.ended()

        task = asyncio.create_task(request())
        await asyncio.sleep(0)
        try:
            yield task, served, end
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def soon(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), 5)


async def test_no_more_than_the_engine_serves_well_are_let_in_and_the_next_follows_at_once() -> None:
    house = House()
    async with (
        house.begun(house.job()) as (_, one, end),
        house.begun(house.job()) as (_, two, _),
        house.begun(house.job()) as (_, three, _),
    ):
        await soon(one)
        await soon(two)
        assert not three.is_set()
        assert house.pacer.waiting == 1
        end.set()
        await soon(three)


async def test_who_leaves_while_waiting_frees_nothing_and_leaves_nothing() -> None:
    house = House()
    async with house.begun(house.job()) as (_, one, _), house.begun(house.job()) as (_, two, _):
        await soon(one)
        await soon(two)
        async with house.begun(house.job()) as (task, three, _):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert not three.is_set()
        assert (house.policy.waiting, house.policy.running) == (0, 2)
    assert (house.policy.waiting, house.policy.running) == (0, 0)


async def test_who_leaves_in_the_middle_frees_the_place() -> None:
    house = House()
    async with house.begun(house.job()) as (task, one, _), house.begun(house.job()), house.begun(house.job()) as last:
        await soon(one)
        task.cancel()
        await soon(last[1])


async def test_what_cannot_be_served_in_time_is_turned_away_at_once_with_when_to_come_back() -> None:
    house = House()
    async with house.begun(house.job(answer=1000)), house.begun(house.job(answer=1000)):
        with pytest.raises(Refused) as caught:
            async with house.pacer.turn(house.job(within_s=0.5)):
                raise AssertionError("it was let in")
        assert caught.value.refusal.reason is Reason.OVERLOADED, "a stranger would wait as long"
        assert caught.value.refusal.retry_after_s
        assert house.pacer.turned_away[Reason.OVERLOADED] == 1


async def test_an_engine_that_stalls_keeps_nobody_waiting_beyond_the_promise() -> None:
    house = House()
    async with house.begun(house.job()), house.begun(house.job()):
        async with house.begun(house.job(within_s=2.0)) as (task, served, _):
            house.now += 3.0  # nothing came from the engine meanwhile
            with pytest.raises(Refused):
                await asyncio.wait_for(task, 5)
            assert not served.is_set()
        assert house.pacer.waiting == 0


async def test_who_waited_in_vain_is_told_why_and_when_as_if_it_came_now() -> None:
    house = House()
    async with house.begun(house.job(answer=2000)), house.begun(house.job(answer=2000)):
        async with house.begun(house.job()) as (task, _, _):
            assert house.pacer.waiting == 1
            house.capacity = replace(ROOMY, speed=replace(SPEED, answer_s=0.05))
            house.now += 61.0
            with pytest.raises(Refused) as caught:
                await asyncio.wait_for(task, 5)
        late, now = caught.value.refusal, house.pacer.turned_away_at_once(house.job())
        assert now is not None
        assert now.retry_after_s is not None
        assert late.reason is now.reason
        assert now.retry_after_s > 10
        assert late.retry_after_s == pytest.approx(now.retry_after_s)


async def test_an_engine_that_is_found_slower_leaves_nobody_unanswered() -> None:
    """The job is let in at one speed, and late at the next."""
    house = House()
    slower = replace(ROOMY, speed=replace(SPEED, prefill_s=2e-3))
    speeds = iter([ROOMY])
    house.pacer = Pacer(house.policy, lambda: next(speeds, slower), lambda: house.now)
    with pytest.raises(Refused):
        await asyncio.wait_for(anext(_turns(house, house.job(prompt=1000, within_s=1.5))), 5)


async def _turns(house: House, job: Job) -> AsyncIterator[None]:
    async with house.pacer.turn(job):
        yield


async def test_a_clock_that_jumps_back_stops_nothing() -> None:
    house = House()
    house.now -= 50.0
    async with house.begun(replace(house.job(), arrived=100.0)) as (task, served, end):
        await soon(served)
        house.now = float("nan")
        end.set()
        await asyncio.wait_for(task, 5)


async def test_whoever_listens_hears_how_many_wait() -> None:
    house = House()
    async with house.begun(house.job()) as (_, one, end), house.begun(house.job()) as (_, two, _):
        await soon(one)
        await soon(two)
        async with house.begun(house.job()) as (_, three, _):
            assert house.crowds[-1] == 1
            end.set()
            await soon(three)
            assert house.crowds[-1] == 0


async def test_what_would_be_turned_away_is_known_before_it_comes_and_counted() -> None:
    house = House()
    async with house.begun(house.job(answer=1000)), house.begun(house.job(answer=1000)):
        assert house.pacer.turned_away_at_once(house.job(within_s=100.0)) is None
        refusal = house.pacer.turned_away_at_once(house.job(within_s=0.5))
        assert refusal is not None
        assert refusal.retry_after_s
        assert house.pacer.turned_away[Reason.OVERLOADED] == 1
        assert (house.policy.waiting, house.policy.running) == (0, 2)
        impossible = replace(house.job(), prompt_tokens=-1)
        assert house.pacer.turned_away_at_once(impossible) is None, "its sizes were a guess"
