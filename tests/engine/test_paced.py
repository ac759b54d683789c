"""What a request is to the batching core, and how it is turned away."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from serving.batching.board import Board, Reading
from serving.batching.jobs import Job
from serving.engine.paced import Core
from serving.engine.port import ClaimFacts
from serving.engine.turnaway import OVER_SHARE, Turnaway, TurnedAway
from serving.types import ServiceClass
from tenants.country import Slo

SLOW = Reading(fixed_s=0.02, prefill_token_s=1e-3, decode_stream_s=1e-3, observations=100)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path / "board", create=True)


def core(board: Board) -> Core:
    board.write(SLOW)
    return Core(Slo(), max_streams=64, cache_tokens=10_000, cache_block=16, board=board)


def early(made: Core, claim: ClaimFacts) -> Turnaway | None:
    """Of a request that goes no further."""
    with made.foreseen(claim) as away:
        return away


def claim(organisation: str = "acme", service_class: ServiceClass = ServiceClass.STANDARD) -> ClaimFacts:
    return ClaimFacts(organisation, "req_1", service_class, time.time() + 60, f"salt-{organisation}", weight=2.0)


def test_a_request_is_what_its_claim_says(board: Board) -> None:
    job = core(board).job(claim(), range(100), 40, 1)
    assert (job.organisation, job.service_class, job.weight) == ("acme", ServiceClass.STANDARD, 2.0)
    assert (job.prompt_tokens, job.answer_tokens, job.streams) == (100, 40, 1)
    assert job.first_token_by - job.arrived == pytest.approx(Slo().first_token_s)
    assert job.deadline - job.arrived == pytest.approx(60, abs=0.5)


def test_a_prompt_too_long_for_the_promise_is_long_and_not_late(board: Board) -> None:
    made = core(board).job(claim(), range(4000), 40, 1)
    assert made.first_token_by - made.arrived > 4000 * SLOW.prefill_token_s


def test_classes_wait_as_long_as_they_were_promised(board: Board) -> None:
    batch = core(board).job(claim(service_class=ServiceClass.BATCH), range(10), 40, 1)
    assert batch.first_token_by - batch.arrived == pytest.approx(Slo().promise("batch").first_token_s)


async def test_what_was_served_is_taken_for_cached_by_the_same_organisation_alone(board: Board) -> None:
    made = core(board)
    prompt = list(range(64))
    async with made.turn(made.job(claim(), prompt, 4, 1), claim(), prompt):
        pass
    assert made.job(claim(), prompt, 4, 1).cached_tokens == 63
    assert made.job(claim("other"), prompt, 4, 1).cached_tokens == 0


async def test_a_claim_that_has_run_out_is_turned_away_before_anything_is_generated(board: Board) -> None:
    made = core(board)
    late = replace(claim(), deadline=time.time() - 5)
    with pytest.raises(TurnedAway):
        async with made.turn(made.job(late, range(10), 4, 1), late, range(10)):
            raise AssertionError("it was served")
    assert sum(made.refusals.values()) == 1
    assert made.waiting == 0


async def test_what_would_be_turned_away_for_certain_is_known_from_the_size_of_its_body(board: Board) -> None:
    made = core(board)
    sized = replace(claim(), body_bytes=400)
    assert early(made, sized) is None
    async with AsyncExitStack() as leaving:
        for number in range(50):
            one = made.job(sized, range(100 * number, 100 * number + 100), 200, 1)
            leaving.push_async_callback(_ended, asyncio.create_task(_held(made, one)))
            await asyncio.sleep(0)
            if sum(made.refusals.values()):
                break
        away = early(made, sized)
        assert away is not None
        assert (away.status, away.reason) == (OVER_SHARE, "over_share")
        assert away.retry_after_s > 0
        assert early(made, replace(sized, organisation="other")) is None, "it has had nothing yet"
        assert early(made, claim()) is None, "of a body of unknown size nothing is certain"
        batch = replace(sized, service_class=ServiceClass.BATCH)
        assert early(made, batch) is None, "it has time"


async def test_of_a_burst_those_are_turned_away_unread_who_have_no_room_behind_the_others(
    board: Board,
) -> None:
    """Nobody of them has asked for a turn yet when the last one comes."""
    made = core(board)
    learnt = replace(claim(), body_bytes=400)
    for _ in range(20):
        made.job(learnt, range(100), 200, 1)
    burst = [replace(learnt, request_id=f"req_{number}") for number in range(60)]
    with ExitStack() as under_way:
        seen = [under_way.enter_context(made.foreseen(one)) for one in burst]
        read = seen.index(next(one for one in seen if one))
        assert 3 < read < 50
        assert all(seen[read:])
        assert early(made, replace(learnt, organisation="other", request_id="req_other")) is None
    assert [early(made, one) for one in burst] == [None] * len(burst), "they have left"


async def test_who_has_asked_for_a_turn_is_not_counted_as_coming_too(board: Board) -> None:
    made = core(board)
    learnt = replace(claim(), body_bytes=400)
    for _ in range(20):
        made.job(learnt, range(100), 200, 1)
    async with AsyncExitStack() as under_way:
        for number in range(60):
            one = replace(learnt, request_id=f"req_{number}")
            if under_way.enter_context(made.foreseen(one)) is not None:
                break
            held = asyncio.create_task(_held(made, made.job(one, range(100), 200, 1), one))
            under_way.push_async_callback(_ended, held)
            await asyncio.sleep(0)
        in_turn = number
    with ExitStack() as coming:
        unread = [coming.enter_context(made.foreseen(replace(learnt, request_id=f"new_{one}"))) for one in range(60)]
    assert in_turn >= 0.7 * unread.index(next(one for one in unread if one))


async def test_whoever_sends_long_prompts_is_judged_by_their_length_and_a_picture_is_not(board: Board) -> None:
    made = core(board)
    long, short = replace(claim(), body_bytes=8000), replace(claim(), body_bytes=400)
    for _ in range(50):
        made.job(long, range(2000), 4, 1)
    async with AsyncExitStack() as leaving:
        for number in range(50):
            one = made.job(short, range(100 * number, 100 * number + 100), 200, 1)
            leaving.push_async_callback(_ended, asyncio.create_task(_held(made, one)))
            await asyncio.sleep(0)
            if sum(made.refusals.values()):
                break
        assert early(made, short) is not None
        assert early(made, long) is None, "it is due after several times its own prefill"
        picture = replace(claim("painter"), body_bytes=4_000_000)
        assert early(made, picture) is None


async def test_a_long_prompt_is_read_whenever_it_would_then_be_let_in(board: Board) -> None:
    made = core(board)
    long, shorter = replace(claim(), body_bytes=8000), replace(claim(), body_bytes=1200)
    for _ in range(200):
        made.job(long, range(2000), 4, 1)
    both = []
    async with AsyncExitStack() as leaving:
        for number in range(40):
            foreseen = early(made, long) is not None
            refused = sum(made.refusals.values())
            task = asyncio.create_task(_held(made, made.job(long, range(2000), 4, 1)))
            await asyncio.sleep(0)
            both.append((foreseen, sum(made.refusals.values()) > refused))
            await _ended(task)
            before = made.job(shorter, range(300 * number, 300 * number + 300), 4, 1)
            patient = replace(before, first_token_by=before.first_token_by + 60)
            leaving.push_async_callback(_ended, asyncio.create_task(_held(made, patient)))
            await asyncio.sleep(0)
    assert (True, False) not in both, "it would have waited"
    read_in_vain = both.count((False, True))
    assert both.count((False, False)) > 5 > read_in_vain, both
    assert both[-1] == (True, True)


async def _held(made: Core, job: Job, whose: ClaimFacts | None = None) -> None:
    async with made.turn(job, whose or claim(), range(3)):
        await asyncio.Event().wait()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_the_scheduler_is_told_whose_it_is_and_when_it_is_due(board: Board) -> None:
    made = core(board)
    job = made.job(claim(service_class=ServiceClass.BATCH), range(10), 4, 1)
    told = made.told(job)
    assert told.account == job.account
    assert told.share == job.share < job.weight
    assert told.first_token_by == job.first_token_by
    assert type(told).of(told.extra()["domicile"]) == told
