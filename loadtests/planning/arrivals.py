"""When requests come: the arrival processes of :class:`loadtests.scenario.Arrivals`, as lists of times.

Open loop: the times are drawn before the run, so that a slow service cannot make its clients wait with their next
request, which would hide the queue that it makes (coordinated omission).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from loadtests.scenario import Arrivals

DAY_S = 86_400.0
PEAK_HOUR = 20.0
"""Local time at which most is asked."""
_WINTER_DAY = datetime(2026, 1, 15)
"""Which day is played: a fixed one, so that a scenario is the same in summer."""
_GRID = 8192

Family = Literal["gamma", "weibull"]
Curve = npt.NDArray[np.float64]


def times(
    arrivals: Arrivals,
    rate: float,
    until: float | None,
    duration_s: float,
    rng: random.Random,
    *,
    time_zone: str = "UTC",
) -> list[float]:
    """When requests come within ``[0, duration_s)``, sorted; ``rate`` in requests a second.

    ``until`` is where a ramp ends, and ``time_zone`` moves a diurnal curve. A trace has rows instead: :func:`replayed`.
    """
    match arrivals.process:
        case "constant":
            return _constant(rate, duration_s, rng)
        case "poisson":
            return renewals(rate, 1.0, duration_s, rng)
        case "gamma":
            return renewals(rate, arrivals.cv, duration_s, rng)
        case "ramp":
            return _warped(np.linspace(rate, rate if until is None else until, _GRID + 1), duration_s, rng)
        case "diurnal":
            return _warped(rate * day(arrivals.peak, time_zone, _GRID + 1), duration_s, rng)
        case "trace":
            raise ValueError("a trace has its own times")


def _constant(rate: float, duration_s: float, rng: random.Random) -> list[float]:
    """Evenly spaced, beginning at a random moment of the first interval, so that streams do not march in step."""
    first = rng.random()
    return [at for number in range(math.ceil(rate * duration_s)) if (at := (number + first) / rate) < duration_s]


def renewals(rate: float, cv: float, duration_s: float, rng: random.Random, family: Family = "gamma") -> list[float]:
    """Independent inter-arrival times of one distribution with coefficient of variation ``cv``.

    ``gamma`` of 1 is the Poisson process. The process is met in its stationary state: the first arrival comes after the
    rest of an interval that began before, which is a uniform share of a length-biased one (Cox, *Renewal Theory*, 1962,
    chapter 5). Were time zero an arrival, bursty processes would bring (cv² − 1) / 2 requests too many.
    """
    if family == "gamma":
        shape, power = 1 / cv**2, 1.0
        scale, biased = 1 / (rate * shape), shape + 1
    else:
        # A Weibull variable is a power of an exponential one.
        shape, power = 1.0, 1 / _weibull_shape(cv)
        scale, biased = (1 / (rate * math.gamma(1 + power))) ** (1 / power), 1 + power
    found: list[float] = []
    at = rng.random() * (scale * rng.gammavariate(biased, 1)) ** power
    while at < duration_s:
        found.append(at)
        at += (scale * rng.gammavariate(shape, 1)) ** power
    return found


@lru_cache
def _weibull_shape(cv: float) -> float:
    """By bisection: the larger the shape, the smaller the variation."""
    low, high = 0.1, 20.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        square = math.gamma(1 + 2 / middle) / math.gamma(1 + 1 / middle) ** 2 - 1
        low, high = (middle, high) if square > cv**2 else (low, middle)
    return high


def day(peak: float, time_zone: str, points: int) -> Curve:
    """A day's rate over its mean, from midnight to midnight UTC: ``exp(κ cos θ)``, highest at 20:00 local time.

    κ is such that the highest is ``peak``. Unlike a plain sinusoid it can exceed twice the mean.
    """
    offset = _WINTER_DAY.replace(tzinfo=ZoneInfo(time_zone)).utcoffset()
    local_hours = np.linspace(0, 24, points) + (offset.total_seconds() / 3600 if offset else 0.0)
    return _curve((local_hours - PEAK_HOUR) / 24 * 2 * np.pi, _concentration(peak)) * peak


def _curve(angles: Curve, concentration: float) -> Curve:
    return np.exp(concentration * (np.cos(angles) - 1))


@lru_cache
def _concentration(peak: float) -> float:
    """κ by bisection: mean over maximum falls as it grows."""
    angles = np.linspace(-np.pi, np.pi, _GRID, endpoint=False)
    low, high = 0.0, 1.0
    while _curve(angles, high).mean() > 1 / peak and high < 1e6:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _curve(angles, middle).mean() > 1 / peak else (low, middle)
    return high


def _warped(rates: Curve, duration_s: float, rng: random.Random) -> list[float]:
    """Poisson arrivals whose rate follows ``rates``, evenly spaced over the duration.

    A process of rate 1 is carried through the inverse of the cumulative rate (Çinlar, *Introduction to Stochastic
    Processes*, 1975, chapter 4).
    """
    step = duration_s / (len(rates) - 1)
    cumulative = np.concatenate(([0.0], np.cumsum((rates[1:] + rates[:-1]) / 2 * step)))
    even = renewals(1.0, 1.0, float(cumulative[-1]), rng)
    found = np.interp(even, cumulative, np.linspace(0, duration_s, len(rates)))
    return [float(at) for at in found if at < duration_s]


def replayed(at: Sequence[float], rate: float | None, duration_s: float) -> list[tuple[float, int]]:
    """A trace's rows in the run: when, and which. ``at`` are the rows' own times, sorted.

    Time counts from the first row. Without ``rate`` the trace is played once, as it was, and cut at the end. With it,
    time is stretched until the mean rate is ``rate``, and a trace that is then too short begins again.
    """
    if rate is None:
        return [(when - at[0], row) for row, when in enumerate(at) if when - at[0] < duration_s]
    span = at[-1] - at[0]
    gap = span / (len(at) - 1) if span > 0 else 1.0
    offsets = [when - at[0] for when in at] if span > 0 else [float(row) for row in range(len(at))]
    stretch = 1 / (rate * gap)
    lap = len(at) * gap * stretch
    laps = math.ceil(duration_s / lap)
    placed = ((number * lap + offset * stretch, row) for number in range(laps) for row, offset in enumerate(offsets))
    return [(when, row) for when, row in placed if when < duration_s]


def zipf(count: int, skew: float) -> list[float]:
    """Shares that fall as ``rank ** -skew`` and sum to 1."""
    weights = [rank**-skew for rank in range(1, count + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]
