"""The step-time model, on engines whose truth is known."""

from __future__ import annotations

import math
from dataclasses import astuple
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.batching.steptime import LONGEST_S, PRIOR, Coefficients, Step, StepTime

ENGINES = {
    "graphics card": Coefficients(4e-3, 2e-5, 3e-5, 2e-8),
    "two cores": Coefficients(0.02, 1e-3, 2.3e-3, 1e-6),
    "very slow": Coefficients(0.2, 0.02, 0.05, 1e-5),
}
PROFILE = [Step(p, d, d * c) for p in (0, 64, 512) for d in (0, 1, 8, 16) for c in (100, 1000) if p + d]
each_engine = pytest.mark.parametrize("truth", ENGINES.values(), ids=ENGINES)


def took(truth: Coefficients, step: Step) -> float:
    return StepTime.of(truth).predict(step)


def steps(rng: Random, count: int) -> list[Step]:
    """Steps as they come: most only decode, streams have contexts of their own."""
    drawn = []
    for _ in range(count):
        prefill, decodes = rng.choice((0, 0, 0, 64, 256, 1000)), rng.randint(1, 16)
        drawn.append(Step(prefill, decodes, decodes * rng.randint(50, 2000)))
    return drawn


def fed(truth: Coefficients, model: StepTime, rng: Random, count: int, noise: float = 0.1) -> StepTime:
    for step in steps(rng, count):
        model.observe(step, took(truth, step) * rng.uniform(1 - noise, 1 + noise))
    return model


def worst(truth: Coefficients, model: StepTime) -> float:
    return max(abs(model.predict(step) / took(truth, step) - 1) for step in steps(Random(9), 200))


@each_engine
def test_a_short_profile_is_enough_to_predict_by(truth: Coefficients) -> None:
    model, rng = StepTime(), Random(1)
    for step in PROFILE:
        model.observe(step, took(truth, step) * rng.uniform(0.95, 1.05))
    assert worst(truth, model) < 0.1


@each_engine
def test_it_learns_every_coefficient_through_noise_and_outliers(truth: Coefficients) -> None:
    model, rng = StepTime(), Random(2)
    for step in steps(rng, 2000):
        hiccup = rng.choice((10, 0.1, 100)) if rng.random() < 0.02 else 1
        model.observe(step, took(truth, step) * rng.uniform(0.9, 1.1) * hiccup)
    assert worst(truth, model) < 0.05
    assert model.coefficients.prefill_token_s == pytest.approx(truth.prefill_token_s, rel=0.03)


def test_times_that_are_far_off_both_ways_do_not_pull_it_to_the_short_ones() -> None:
    truth, model, rng = ENGINES["two cores"], StepTime(), Random(2)
    for step in steps(rng, 2000):
        odd = rng.choice((5, 0.2)) if rng.random() < 0.1 else 1
        model.observe(step, took(truth, step) * rng.uniform(0.9, 1.1) * odd)
    assert worst(truth, model) < 0.2


def test_hours_of_decoding_leave_the_cost_of_a_prefill_as_it_was() -> None:
    truth = ENGINES["two cores"]
    model, rng = fed(truth, StepTime(), Random(3), 1000), Random(4)
    for _ in range(20_000):
        step = Step(0, 16, 8000)
        model.observe(step, took(truth, step) * rng.uniform(0.9, 1.1))
    assert worst(truth, model) < 0.05
    known, slow = model.coefficients.prefill_token_s, Step(512, 16, 8000)
    model.observe(slow, 1.2 * model.predict(slow))
    assert model.coefficients.prefill_token_s == pytest.approx(known, rel=0.03)


@each_engine
@pytest.mark.parametrize("factor", [1 / 50, 1 / 3, 3])
def test_it_follows_an_engine_that_changes(truth: Coefficients, factor: float) -> None:
    rng = Random(5)
    model = fed(truth, StepTime(), rng, 1000)
    now = Coefficients(*(factor * figure for figure in astuple(truth)))
    after = [step for step in steps(rng, 600) if took(now, step) <= LONGEST_S]
    for step in after:
        model.observe(step, took(now, step) * rng.uniform(0.9, 1.1))
    assert worst(now, model) < 0.2


def test_a_machine_that_is_slow_for_a_moment_is_known_to_be_and_what_was_learned_is_kept() -> None:
    truth, rng = ENGINES["two cores"], Random(13)
    model = fed(truth, StepTime(), rng, 2000)
    usual = Step(100, 8, 4000)
    for _ in range(12):
        model.observe(usual, 1.4 * took(truth, usual) * rng.uniform(0.9, 1.1))
    other = Step(0, 16, 16_000)
    assert model.predict(other) == pytest.approx(1.35 * took(truth, other), rel=0.12)
    for _ in range(12):
        model.observe(usual, took(truth, usual) * rng.uniform(0.9, 1.1))
    assert worst(truth, model) < 0.15


def test_a_change_too_large_to_believe_is_believed_when_it_stays() -> None:
    truth = ENGINES["graphics card"]
    now = Coefficients(*(50 * figure for figure in astuple(truth)))
    model = fed(now, fed(truth, StepTime(), Random(11), 1000), Random(12), 200)
    assert worst(now, model) < 0.1


def test_its_error_is_that_of_predictions_made_before_the_fact() -> None:
    truth = ENGINES["two cores"]
    model = fed(truth, StepTime(), Random(6), 2000, noise=0.2)
    assert model.error == pytest.approx(0.1, abs=0.03)
    before = model.error
    step = Step(0, 4, 1000)
    model.observe(step, 2 * model.predict(step))
    assert model.error == pytest.approx(0.98 * before + 0.02 * 0.5)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 0.0, -1.0, LONGEST_S + 1])
def test_a_time_that_cannot_be_changes_nothing(seconds: float) -> None:
    model = fed(ENGINES["two cores"], StepTime(), Random(7), 100)
    before = (model.coefficients, model.error, model.observations)
    model.observe(Step(10, 1, 10), seconds)
    assert (model.coefficients, model.error, model.observations) == before
    assert model.ignored == 1


@pytest.mark.parametrize("step", [Step(0, 0, 0), Step(-1, 2, 0), Step(0, 1, -5), Step(0, 0, 100)])
def test_a_step_of_nothing_teaches_nothing(step: Step) -> None:
    model = StepTime()
    model.observe(step, 0.1)
    assert (model.coefficients, model.observations, model.ignored) == (PRIOR, 0, 1)


def test_a_clock_that_jumps_is_not_believed_at_once() -> None:
    truth = ENGINES["graphics card"]
    model = fed(truth, StepTime(), Random(8), 500)
    for _ in range(5):
        model.observe(Step(0, 8, 8000), 30.0)
    assert model.ignored == 5
    assert worst(truth, model) < 0.05


sane = st.floats(1e-9, 1.0)
anything = st.builds(Coefficients, sane, sane, sane, sane)
counts = st.integers(0, 5000)


@given(anything, st.floats(0, 10), st.integers(0, 64), counts, counts, st.integers(0, 100))
def test_a_chunk_is_the_largest_that_fits(
    known: Coefficients, within: float, streams: int, context: int, most: int, least: int
) -> None:
    model = StepTime.of(known)
    chunk = model.chunk(within, streams, context, at_most=most, at_least=least)
    assert min(least, most) <= chunk <= most
    if chunk > least:
        assert model.predict(Step(chunk, streams, context)) <= within * (1 + 1e-9)
    if chunk < most:
        assert model.predict(Step(chunk + 1, streams, context)) > within * (1 - 1e-9)


@given(st.lists(st.tuples(st.builds(Step, counts, st.integers(0, 64), counts), st.floats()), max_size=80))
def test_no_measurement_makes_a_coefficient_negative_or_breaks_it(seen: list[tuple[Step, float]]) -> None:
    model = StepTime()
    for step, seconds in seen:
        model.observe(step, seconds)
    assert model.coefficients.usable
    assert math.isfinite(model.error)
    assert model.observations + model.ignored == len(seen)


def test_coefficients_make_the_same_model_elsewhere_and_one_that_goes_on_learning() -> None:
    model = fed(ENGINES["very slow"], StepTime(), Random(9), 500)
    copy = StepTime.of(model.coefficients)
    assert astuple(copy.coefficients) == pytest.approx(astuple(model.coefficients))
    assert worst(ENGINES["two cores"], fed(ENGINES["two cores"], copy, Random(10), 500)) < 0.05
    with pytest.raises(ValueError, match="negative"):
        StepTime.of(Coefficients(-1.0))


def test_speed_counts_every_second_of_a_step_once() -> None:
    model = StepTime.of(ENGINES["two cores"])
    speed = model.speed(16, 500, decode_streams=16, within_s=0.12)
    step = Step(40, 16, 8000)
    assert 40 * speed.prefill_s + 16 * speed.answer_s == pytest.approx(model.predict(step))
    chunk = model.chunk(0.12, 16, 8000, at_most=2048)
    assert speed.slowdown == pytest.approx(0.12 / (chunk * speed.prefill_s), rel=0.05)
    assert model.speed(16, 500).slowdown == 1.0
