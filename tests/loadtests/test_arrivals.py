"""Arrival processes keep their mean rate and their variation, and a country's day peaks in its own evening."""

from __future__ import annotations

import random
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.planning.arrivals import PEAK_HOUR, Family, day, renewals, replayed, times, zipf
from loadtests.scenario import Arrivals

PROCESSES = ("constant", "poisson", "gamma", "ramp", "diurnal")


def arrivals(process: str, cv: float = 1.0, peak: float = 3.0) -> Arrivals:
    until = {"until_rate": 1.0} if process == "ramp" else {}
    return Arrivals.model_validate({"process": process, "rate": 1.0, "cv": cv, "peak": peak, **until})


def drawn(process: str, rate: float, duration_s: float, seed: int = 1, until: float | None = None) -> list[float]:
    return times(arrivals(process), rate, until, duration_s, random.Random(seed))


def cv_of(found: list[float]) -> float:
    gaps = np.diff(found)
    return float(gaps.std() / gaps.mean())


@pytest.mark.parametrize("process", PROCESSES)
@given(rate=st.floats(0.01, 200), duration_s=st.floats(0.1, 50), seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_times_are_sorted_within_the_duration_and_repeatable(
    process: str, rate: float, duration_s: float, seed: int
) -> None:
    found = drawn(process, rate, duration_s, seed, rate * 2)
    assert found == sorted(found)
    assert all(0 <= at < duration_s for at in found)
    assert found == drawn(process, rate, duration_s, seed, rate * 2)


@pytest.mark.parametrize("process", PROCESSES)
def test_another_seed_brings_other_times(process: str) -> None:
    assert drawn(process, 5, 100, 1) != drawn(process, 5, 100, 2)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("seed", range(3))
def test_the_mean_rate_is_the_one_asked_for(process: str, seed: int) -> None:
    """Within five standard deviations of a Poisson count."""
    assert len(drawn(process, 20, 1000, seed)) == pytest.approx(20_000, abs=5 * 20_000**0.5)


@pytest.mark.parametrize("cv", [0.3, 1.0, 1.09, 3.0])
@pytest.mark.parametrize("family", ["gamma", "weibull"])
def test_inter_arrival_times_vary_as_asked_for(cv: float, family: Family) -> None:
    found = renewals(50, cv, 2000, random.Random(2), family)
    assert cv_of(found) == pytest.approx(cv, rel=0.06)
    assert len(found) == pytest.approx(100_000, rel=0.03)


def test_the_variation_of_code_completion_is_reached() -> None:
    """The coefficient of variation of 13 takes many arrivals to show: a burst is hundreds of them."""
    assert cv_of(renewals(50, 13.0, 20_000, random.Random(3))) == pytest.approx(13, rel=0.1)


@pytest.mark.parametrize("cv", [0.2, 1.0, 6.0])
def test_a_short_phase_gets_its_rate_too(cv: float) -> None:
    """A process that began with an arrival at time zero would bring (cv² − 1) / 2 too many: 17 instead of 10 here."""
    counts = [len(renewals(1, cv, 10, random.Random(seed))) for seed in range(4000)]
    assert fmean(counts) == pytest.approx(10, abs=4 * stdev(counts) / len(counts) ** 0.5)


def test_constant_is_evenly_spaced_but_not_in_step() -> None:
    found = drawn("constant", 4, 10)
    assert np.diff(found) == pytest.approx(0.25)
    assert len(found) == 40


def test_a_ramp_goes_from_rate_to_until() -> None:
    found = drawn("ramp", 10, 1000, until=50)
    assert len(found) == pytest.approx(30_000, rel=0.03)
    tenths = np.histogram(found, bins=10, range=(0, 1000))[0] / 100
    assert tenths == pytest.approx([12, 16, 20, 24, 28, 32, 36, 40, 44, 48], rel=0.15)


def test_a_ramp_may_go_down() -> None:
    found = drawn("ramp", 50, 1000, until=10)
    assert len([at for at in found if at < 500]) == pytest.approx(20_000, rel=0.05)


@pytest.mark.parametrize("peak", [1.0, 1.5, 3.0, 10.0, 200.0])
def test_the_busiest_moment_of_a_day_is_the_peak_times_the_mean(peak: float) -> None:
    curve = day(peak, "UTC", 24 * 60 * 4 + 1)
    assert curve.max() == pytest.approx(peak, rel=1e-3)
    assert curve[:-1].mean() == pytest.approx(1, rel=1e-3)
    assert curve.min() >= 0


@pytest.mark.parametrize(
    ("time_zone", "hour"),
    [("UTC", 20), ("Europe/Tallinn", 18), ("Asia/Seoul", 11), ("America/Sao_Paulo", 23), ("Asia/Kolkata", 14.5)],
)
def test_each_country_peaks_in_its_own_evening(time_zone: str, hour: float) -> None:
    """Hours are UTC: at which of the run's moments it is 20:00 there."""
    assert PEAK_HOUR == 20
    found = np.array(times(arrivals("diurnal"), 200, None, 240, random.Random(1), time_zone=time_zone))
    angles = found / 240 * 2 * np.pi
    mean_hour = float(np.angle(np.exp(1j * angles).mean())) / (2 * np.pi) * 24 % 24
    assert mean_hour == pytest.approx(hour, abs=0.25)


def test_arrivals_of_a_day_follow_its_curve() -> None:
    found = drawn("diurnal", 500, 240)
    rates = np.histogram(found, bins=24, range=(0, 240))[0] / 10 / 500
    curve = day(3.0, "UTC", 24 * 60 + 1)[:-1].reshape(24, 60).mean(axis=1)
    assert rates == pytest.approx(curve, abs=0.1)


def test_a_trace_without_a_rate_is_played_once_as_it_was() -> None:
    assert replayed([100.0, 101.5, 103.0, 200.0], None, 60) == [(0, 0), (1.5, 1), (3, 2)]


def test_a_trace_is_stretched_to_the_rate_and_begins_again() -> None:
    found = replayed([10.0, 11.0, 14.0], 2.0, 6)
    assert [row for _, row in found] == [0, 1, 2] * 4
    assert len(found) / 6 == 2
    gaps = np.diff([at for at, _ in found])
    assert gaps[:2] == pytest.approx([0.25, 0.75])


@given(
    at=st.lists(st.floats(0, 1e6), min_size=1, max_size=30).map(sorted),
    rate=st.floats(0.1, 20),
    duration_s=st.floats(1, 100),
)
def test_a_replayed_trace_keeps_its_rate_and_order(at: list[float], rate: float, duration_s: float) -> None:
    found = replayed(at, rate, duration_s)
    when = [due for due, _ in found]
    assert when == sorted(when)
    assert all(0 <= due < duration_s for due in when)
    assert len(found) == pytest.approx(rate * duration_s, abs=len(at) + 1)


@pytest.mark.parametrize("skew", [0.0, 0.73, 1.0, 2.0])
def test_shares_sum_to_one_and_fall(skew: float) -> None:
    shares = zipf(20, skew)
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] / shares[9] == pytest.approx(10**skew)
