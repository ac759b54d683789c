"""Whether somebody who times answers can tell two kinds of request apart: an effect with its interval, not a mean.

The measure is what a listener could do with it. Shown one time of each kind, how often is he right about which is
which? That is the statistic of Mann and Whitney's test as a share: 50% is a coin, 100% is certainty. Whether it is
small enough is asked as of two medicines that ought to act alike: the whole 90% interval must lie within :data:`BOUND`
(two one-sided tests of 5%), so that a test which saw too little cannot pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOUND = 0.15
"""How far from a coin's 50% a listener may get, for two kinds to be called alike."""
PAIRS = 120
"""At this many pairs, kinds that are alike are found alike in more than 95 of 100 runs (a test counts them)."""
DIFFERENT = 0.001
"""Chance of seeing as much where there is nothing, below which two kinds are called different."""
_RESAMPLED, _CONFIDENCE = 2000, 0.90

Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a listener makes of pairs of times."""

    guessed: float
    """Share of guesses that are right, where the shorter time is taken for the first kind."""
    low: float
    high: float
    """Of the 90% interval."""
    chance: float
    """That a coin would do as well or better, either way."""
    pairs: int

    @property
    def alike(self) -> bool:
        return self.low >= 0.5 - BOUND and self.high <= 0.5 + BOUND

    @property
    def different(self) -> bool:
        return self.chance < DIFFERENT

    def __str__(self) -> str:
        return f"{self.guessed:.0%} ({self.low:.0%} to {self.high:.0%})"


def compare(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Comparison:
    """Times of two kinds, measured in pairs: each pair close together, in an order drawn by lot."""
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.shape != two.shape or one.ndim != 1 or one.size < 10:
        raise ValueError("times come in pairs, ten at least")
    drawn = np.random.default_rng(seed)
    guessed = _guessed(one, two)
    picks = drawn.integers(0, one.size, (_RESAMPLED, one.size))
    low, high = np.quantile(
        [_guessed(one[pick], two[pick]) for pick in picks], [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]
    )
    swaps = drawn.random((_RESAMPLED, one.size)) < 0.5
    shuffled = np.array([_guessed(np.where(swap, two, one), np.where(swap, one, two)) for swap in swaps])
    as_far = int(np.sum(np.abs(shuffled - 0.5) >= abs(guessed - 0.5)))
    return Comparison(guessed, float(low), float(high), (1 + as_far) / (1 + _RESAMPLED), one.size)


def _guessed(first: Times, second: Times) -> float:
    """Share of all pairings in which the first is the shorter, ties counted half."""
    order = np.sort(second)
    longer = order.size - np.searchsorted(order, first, side="right")
    equal = order.size - np.searchsorted(order, first, side="left") - longer
    return float((longer.sum() + equal.sum() / 2) / (first.size * order.size))
