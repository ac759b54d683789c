"""Intervals hold what they promise, on data whose truth is known."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.judging.statistics import (
    Floats,
    Interval,
    block_length,
    jain,
    mean,
    proportion,
    quantile,
    quantile_ratio,
    resample,
    warm_up,
    weighted_quantile,
)

RUNS = 200


def drifting(size: int, memory: float, rng: np.random.Generator) -> Floats:
    """Standard normal draws, each like the one before (a first-order autoregressive process)."""
    fresh = rng.standard_normal(size) * math.sqrt(1 - memory**2)
    fresh[0] = rng.standard_normal()
    values = np.empty(size)
    last = 0.0
    for index, draw in enumerate(fresh):
        values[index] = last = memory * last + draw if index else draw
    return values


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("size", [300, 1000])
def test_intervals_hold_the_truth_about_nineteen_times_of_twenty(size: int, memory: float) -> None:
    rng = np.random.default_rng(7)
    held = {"share": 0, "p50": 0, "p95": 0}
    tail = NormalDist().inv_cdf(0.95)
    for _ in range(RUNS):
        values = drifting(size, memory, rng)
        held["share"] += inside(NormalDist().cdf(1.0), proportion(values < 1.0).interval())
        held["p50"] += inside(0.0, quantile(values, 0.5).interval())
        held["p95"] += inside(tail, quantile(values, 0.95).interval())
    assert min(held.values()) / RUNS > 0.86, held


def inside(truth: float, interval: Interval) -> bool:
    return interval.low <= truth <= interval.high


def test_an_interval_that_takes_neighbours_for_strangers_would_be_much_too_narrow() -> None:
    values = drifting(1000, 0.9, np.random.default_rng(3))
    in_time = proportion(values < 1.0)
    shuffled = proportion(np.random.default_rng(4).permutation(values) < 1.0)
    assert in_time.value == shuffled.value
    assert in_time.effective < shuffled.effective / 3


def test_a_share_of_all_is_not_known_exactly() -> None:
    interval = proportion([True] * 60).interval()
    assert interval.high == 1.0
    assert 0.9 < interval.low < 0.95


def test_a_quantile_that_a_short_run_cannot_bound_is_unbounded() -> None:
    values = np.random.default_rng(2).random(800)
    assert quantile(values[:100], 0.99).interval().high == math.inf
    assert quantile(values, 0.99).interval().high < math.inf


def test_tokens_that_come_together_share_the_wait() -> None:
    """Sixteen tokens in one packet after 1.6 s are as sixteen tokens after 0.1 s each."""
    slow_and_even = weighted_quantile(np.full(16, 0.1), np.ones(16), np.zeros(16, np.int64), 0.5)
    in_one_packet = weighted_quantile(np.array([1.6 / 16]), np.array([16.0]), np.zeros(1, np.int64), 0.5)
    assert in_one_packet.value == pytest.approx(slow_and_even.value)


def test_every_token_counts_not_every_arrival() -> None:
    values, weights = np.array([0.05, 0.5]), np.array([1.0, 99.0])
    assert weighted_quantile(values, weights, np.array([0, 1]), 0.5).value == 0.5


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_quantile_is_a_value_that_was_measured_and_lies_within_its_interval(
    values: list[float], share: float
) -> None:
    found = quantile(values, share)
    assert found.value in values
    assert found.interval().low <= found.value <= found.interval().high
    assert sum(value <= found.value for value in values) >= share * len(values) - 1e-6


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_a_share_lies_within_its_interval_and_the_interval_within_nought_and_one(kept: list[bool]) -> None:
    found = proportion(kept)
    low, high = found.interval()
    assert 0 <= low <= found.value <= high <= 1
    wider = found.interval(0.999)
    assert wider.low <= low
    assert wider.high >= high


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=50))
def test_jain_lies_between_one_of_n_and_one(shares: list[float]) -> None:
    assert 1 / len(shares) - 1e-9 <= jain(shares) <= 1 + 1e-9


@given(st.integers(1, 40), st.floats(0.1, 1e6))
def test_jain_knows_its_extremes(count: int, share: float) -> None:
    assert jain([share] * count) == pytest.approx(1.0)
    assert jain([share] + [0.0] * (count - 1)) == pytest.approx(1 / count)


def test_a_slow_beginning_is_cut_and_not_much_more() -> None:
    # Where the noise happens to be low the cut comes late: it is where the rest is steadiest. So most, not all.
    cases = [(seed, cold, slower) for seed in range(8) for cold in (20, 60, 120) for slower in (1.0, 2.0, 4.0)]
    beyond = [warm_up(_slow_at_first(*case)) - case[1] for case in cases]
    assert min(beyond) >= -10, "what is slow is never left in"
    assert sum(cut <= 60 for cut in beyond) >= 0.9 * len(cases)


def _slow_at_first(seed: int, cold: int, slower: float) -> Floats:
    latencies: Floats = 0.3 * np.exp(0.2 * np.random.default_rng(seed).standard_normal(500))
    latencies[:cold] *= 1 + slower
    return latencies


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 300))
def test_at_most_half_is_cut(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    assert 0 <= warm_up(np.linspace(9, 1, size) * np.exp(0.1 * rng.standard_normal(size))) <= size / 2


def test_a_stall_in_the_middle_is_no_warm_up() -> None:
    rng = np.random.default_rng(5)
    cut = 0
    for _ in range(50):
        latencies = 0.3 * np.exp(0.3 * rng.standard_normal(300))
        latencies[90:110] *= 20
        cut += warm_up(latencies) >= 90
    assert cut <= 2


def test_a_steady_run_loses_next_to_nothing() -> None:
    rng = np.random.default_rng(6)
    cuts = [warm_up(np.exp(0.3 * rng.standard_normal(400))) for _ in range(50)]
    assert np.mean(cuts) < 20


def test_the_ratio_of_two_quantiles_holds_the_truth() -> None:
    rng = np.random.default_rng(8)
    held = 0
    for seed in range(30):
        below, above = (scale * np.exp(0.4 * drifting(200, 0.5, rng)) for scale in (0.2, 0.4))
        held += inside(2.0, quantile_ratio(below, above, 0.95, seed).interval())
    assert held >= 25


def test_the_same_seed_draws_the_same_replicates() -> None:
    series = drifting(50, 0.5, np.random.default_rng(9))
    assert mean(series, 1).interval() == mean(series, 1).interval()
    assert mean(series, 1).interval() != mean(series, 2).interval()


def test_a_replicate_is_made_of_stretches_of_the_series() -> None:
    places = resample(10_000, 20.0, np.random.default_rng(10))
    goes_on = np.mean(np.diff(places) % 10_000 == 1)
    assert goes_on == pytest.approx(1 - 1 / 20, abs=0.01)
    assert np.bincount(places, minlength=10_000).mean() == 1


def test_blocks_are_as_long_as_the_memory_asks_for() -> None:
    rng = np.random.default_rng(11)
    lengths = [block_length(drifting(1000, memory, rng)) for memory in (0.0, 0.5, 0.95)]
    assert lengths[0] < lengths[1] < lengths[2]
    assert block_length(np.ones(100)) == 1.0
