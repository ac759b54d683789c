"""When requests come: the arrival processes, drawn before the run, so that a slow service slows nobody down.

Rates are of one organisation: a process of several is the superposition of theirs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from random import Random

from serving.batching.simulation.scenario import Arrivals

DAY_H = 24.0
PEAK_H = 20.0
"""Local time at which most is asked."""
_POINTS = 512


def times(arrivals: Arrivals, rate: float, duration_s: float, utc_offset_h: float, rng: Random) -> Iterator[float]:
    """When requests come within the simulation, rising; ``rate`` in requests a second."""
    end = min(duration_s, duration_s if arrivals.ends_s is None else arrivals.ends_s)
    match arrivals.process:
        case "constant":
            found = _constant(rate, rng)
        case "poisson":
            found = _renewals(rate, 1.0, rng)
        case "gamma":
            found = _renewals(rate, arrivals.cv, rng)
        case "diurnal":
            found = _diurnal(arrivals, rate, duration_s, utc_offset_h, rng)
    for at in found:
        if arrivals.begins_s + at >= end:
            return
        yield arrivals.begins_s + at


def shares(count: int, skew: float) -> list[float]:
    """Zipf: shares that fall as ``rank ** -skew`` and sum to 1."""
    weights = [rank**-skew for rank in range(1, count + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


def _constant(rate: float, rng: Random) -> Iterator[float]:
    """Evenly spaced, from a random moment of the first interval."""
    at = rng.random() / rate
    while True:
        yield at
        at += 1 / rate


def _renewals(rate: float, cv: float, rng: Random) -> Iterator[float]:
    """Gamma inter-arrival times with coefficient of variation ``cv``, met in the stationary state.

    The first one comes after the rest of an interval that began before: a uniform share of a length-biased one
    (Cox, *Renewal Theory*, 1962, chapter 5). With ``cv`` 1 it is the Poisson process.
    """
    shape = 1 / cv**2
    scale = 1 / (rate * shape)
    at = rng.random() * rng.gammavariate(shape + 1, scale)
    while True:
        yield at
        at += rng.gammavariate(shape, scale)


def _diurnal(arrivals: Arrivals, rate: float, duration_s: float, utc_offset_h: float, rng: Random) -> Iterator[float]:
    """Poisson arrivals whose rate follows ``exp(k cos)`` over the day, highest at 20:00 local time.

    By thinning (Lewis and Shedler, Naval Research Logistics 26, 1979).
    """
    day_s = arrivals.day_s or duration_s
    sharpness = _sharpness(arrivals.peak)
    for at in _renewals(rate * arrivals.peak, 1.0, rng):
        hour = (arrivals.begins_s + at) / day_s * DAY_H + utc_offset_h
        if rng.random() < _over_peak(sharpness, (hour - PEAK_H) / DAY_H):
            yield at


def _over_peak(sharpness: float, turn: float) -> float:
    """The rate over the highest, ``turn`` of a day after it."""
    return math.exp(sharpness * (math.cos(2 * math.pi * turn) - 1))


@lru_cache
def _sharpness(peak: float) -> float:
    """Of the curve whose peak is so many times its mean, by bisection."""
    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        mean = sum(_over_peak(middle, point / _POINTS) for point in range(_POINTS)) / _POINTS
        low, high = (middle, high) if mean * peak > 1 else (low, middle)
    return high
