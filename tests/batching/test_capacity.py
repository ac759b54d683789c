"""What an engine can do, from what is known of its steps."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from serving.batching.board import Reading
from serving.batching.capacity import AHEAD_S, PREFILLS, Bounds, capacity
from serving.batching.steptime import LEAST_CHUNK, Coefficients, Step, StepTime

BOUNDS = Bounds(max_streams=64, step_s=0.1)


def reading(known: Coefficients, *, decoding: int = 0, context: int = 0) -> Reading:
    return Reading(**asdict(known), observations=100, decoding=decoding, context_tokens=context)


@pytest.mark.parametrize("fixed_s", [0.01, 0.05, 0.09])
def test_as_many_streams_as_decode_within_the_step(fixed_s: float) -> None:
    known = Coefficients(fixed_s=fixed_s, decode_stream_s=0.001, context_token_s=1e-6)
    found = capacity(reading(known, decoding=4, context=400), BOUNDS)
    model = StepTime(known)
    longest = max(BOUNDS.step_s, 1.5 * model.predict(Step(0, 1, 100)))
    slots = found.slots
    assert slots == 64 or model.predict(Step(0, slots, 100 * slots)) <= longest
    assert slots == 64 or model.predict(Step(0, slots + 1, 100 * (slots + 1))) > longest
    assert found.speed.slots == slots


def test_an_engine_too_slow_for_one_stream_still_takes_several() -> None:
    known = Coefficients(fixed_s=0.2, prefill_token_s=0.003, decode_stream_s=0.002, context_token_s=0.0)
    found = capacity(reading(known, decoding=4, context=400), BOUNDS)
    assert found.slots > 16
    assert StepTime(known).predict(Step(0, found.slots, 0)) <= 1.5 * 0.202 + 1e-9


@pytest.mark.parametrize(("streams", "slots"), [(64, 2), (1, 1)])
def test_where_each_stream_seems_as_dear_as_the_first_a_second_one_still_need_not_wait_for_a_whole_answer(
    streams: int, slots: int
) -> None:
    known = Coefficients(fixed_s=0.01, decode_stream_s=0.09, context_token_s=0.0)
    assert capacity(reading(known), Bounds(max_streams=streams, step_s=0.1)).slots == slots


def test_prefill_beside_streams_that_fill_the_step_goes_on_by_the_least_chunk() -> None:
    known = Coefficients(fixed_s=0.2, prefill_token_s=0.003, decode_stream_s=0.002, context_token_s=0.0)
    speed = capacity(reading(known, decoding=4), BOUNDS).speed
    chunk_s = LEAST_CHUNK * known.prefill_token_s
    assert speed.slowdown == pytest.approx((0.208 + chunk_s) / chunk_s)


def test_what_it_may_hold_unfinished_is_a_third_of_a_second_of_prefill() -> None:
    found = capacity(reading(Coefficients(prefill_token_s=0.002)), BOUNDS)
    assert found.ahead_tokens == round(AHEAD_S / 0.002)
    room = found.room(running=found.slots + 3)
    assert (room.slots, room.prefill_tokens, room.prefills) == (0, found.ahead_tokens, PREFILLS)


def test_before_anything_was_seen_it_goes_by_the_prior_and_is_never_closed() -> None:
    assert capacity(Reading(), BOUNDS).slots >= 1
    assert capacity(Reading(), Bounds(max_streams=64, step_s=1e-6)).slots >= 1
