"""Figures from a run with what is known about their error, for data that comes in bursts.

Requests that are near in time meet the same queue, so they are no independent draws: an interval that takes them for
such is too narrow, by a factor of two and more near saturation. All intervals here rest on the stationary bootstrap
(Politis and Romano, JASA 89, 1994), which draws blocks of neighbours, with the mean block length that the data asks
for (Politis and White, Econometric Reviews 23, 2004; corrected by Patton, Politis and White, 28, 2009).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
REPLICATES = 1000
WARM_UP_MOST = 0.5
"""Share of a series that a warm-up may take at most."""
_BATCH = 5
"""The five of MSER-5."""
_FEWEST_BATCHES = 4
_MATERIAL = 0.05


class Interval(NamedTuple):
    """Both ends belong to it. An end that the data does not bound is infinite."""

    low: float
    high: float


class Estimate(Protocol):
    """A figure that knows its error."""

    @property
    def value(self) -> float: ...

    def interval(self, confidence: float = CONFIDENCE) -> Interval: ...


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share, and the number of independent draws that would know it as well (Kish's effective sample size)."""

    value: float
    effective: float
    blocks: float = math.inf
    """How many blocks of neighbours these draws came in: the error itself is only known so well."""

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Wilson's score interval on the effective size (Korn and Graubard, Survey Methodology 24, 1998).

        Unlike the bootstrap's own percentiles it does not shrink to a point where all requests ended alike.
        """
        z, size, share = _student(confidence, self.blocks), self.effective, self.value
        if size <= 0:
            return Interval(0.0, 1.0)
        middle = (share + z * z / (2 * size)) / (1 + z * z / size)
        half = z / (1 + z * z / size) * math.sqrt(share * (1 - share) / size + z * z / (4 * size * size))
        return Interval(0.0 if share <= 0 else middle - half, 1.0 if share >= 1 else middle + half)


@dataclass(frozen=True)
class Quantile:
    """A quantile of weighted values: the least one that at least ``share`` of the weight does not exceed."""

    share: float
    ordered: Floats
    mass: Floats
    """The share of the weight up to each of the ordered values."""
    effective: float
    blocks: float = math.inf

    @property
    def value(self) -> float:
        return self._at(self.share)

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        """Woodruff's interval (JASA 47, 1952): the values between which so large a share falls by chance.

        Its upper end is infinite where so few requests may all have been below the true quantile: a p99 is bounded
        from above by 368 independent requests or more.
        """
        if self.effective <= 0:
            return Interval(-math.inf, math.inf)
        z = _student(confidence, self.blocks)
        half = z * math.sqrt(self.share * (1 - self.share) / self.effective)
        bounded = self.share**self.effective <= (1 - confidence) / 2
        high = self._at(self.share + half + 1 / self.effective) if bounded else math.inf
        return Interval(self._at(self.share - half), high)

    def _at(self, share: float) -> float:
        place = int(np.searchsorted(self.mass, max(share, 0.0) - 1e-12))
        return float(self.ordered[min(place, len(self.ordered) - 1)])


@dataclass(frozen=True)
class Resampled:
    """A figure with its bootstrap replicates; its interval is between their percentiles."""

    value: float
    replicates: Floats

    def interval(self, confidence: float = CONFIDENCE) -> Interval:
        low, high = np.quantile(self.replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Interval(float(low), float(high))


def _student(confidence: float, blocks: float) -> float:
    """Student's t for as many degrees of freedom as there are blocks (Cornish and Fisher's expansion)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return float(z + (z**3 + z) / (4 * max(blocks, 1.0)))


def proportion(kept: Sequence[bool] | NDArray[np.bool_]) -> Proportion:
    """The share of the requests, in the order in which they came, of which something is true."""
    hits = np.asarray(kept, float)
    if not len(hits):
        return Proportion(math.nan, 0.0)
    return Proportion(float(hits.mean()), *_effective(hits, np.ones(len(hits)), float(len(hits))))


def quantile(values: Sequence[float] | Floats, share: float) -> Quantile:
    """A quantile of one value a request, in the order in which they came."""
    return weighted_quantile(np.asarray(values, float), np.ones(len(values)), np.arange(len(values)), share)


def weighted_quantile(values: Floats, weights: Floats, owners: NDArray[np.int64], share: float) -> Quantile:
    """A quantile of several values a request, each with its weight. ``owners`` numbers the requests from 0, in order.

    For inter-token times a gap of s seconds that brought k tokens is the value s/k with weight k: whoever reads them
    waited s for all k, and cannot tell whether the service or the network held them together. One sample a gap would
    let a service look k times slower for sending its tokens together, and k - 1 samples of zero would let it look
    faster, down to a median of zero. The values of one request are drawn together, as they are anything but
    independent.
    """
    order = np.argsort(values, kind="stable")
    mass = np.cumsum(weights[order])
    if not len(mass) or mass[-1] <= 0:
        return Quantile(share, np.array([math.nan]), np.array([1.0]), 0.0)
    found = Quantile(share, values[order], mass / mass[-1], 1.0)
    size = int(owners.max()) + 1
    below = np.bincount(owners, weights * (values <= found.value), size)
    tries = np.asarray(np.bincount(owners, weights, size), float)
    return Quantile(share, found.ordered, found.mass, *_effective(np.asarray(below, float), tries, float(mass[-1])))


def _effective(hits: Floats, tries: Floats, most: float) -> tuple[float, float]:
    """How many independent tries tell the share of hits as well as these do, which came in this order; and blocks."""
    share = float(hits.sum() / tries.sum())
    spread = share * (1 - share)
    # A ratio of two sums moves as the mean of these residuals does (linearisation).
    residuals = (hits - share * tries) / tries.mean()
    length = block_length(residuals)
    variance = mean_variance(residuals, length)
    if variance <= 0 or spread <= 0:
        return float(np.count_nonzero(tries)), len(tries) / length
    return min(most, spread / variance), len(tries) / length


def mean_variance(series: Floats, length: float) -> float:
    """The variance that the stationary bootstrap gives the mean: its limit for ever more replicates, in closed form.

    Blocks cannot show what varies more slowly than they are long, so that it is enlarged by their share of the whole.
    """
    size = len(series)
    if size < 2:
        return 0.0
    covariance = _autocovariance(series)
    lags = np.arange(1, size)
    stays = (1 - 1 / length) ** lags
    total = covariance[0] + 2 * np.sum((1 - lags / size) * stays * covariance[1:])
    return float(max(total, 0.0) / size / (1 - length / size))


def _autocovariance(series: Floats) -> Floats:
    """Of the series closed to a ring, as the stationary bootstrap closes it."""
    spectrum = np.abs(np.fft.rfft(series - series.mean())) ** 2
    return np.asarray(np.fft.irfft(spectrum, len(series)) / len(series), float)


def block_length(series: Floats) -> float:
    """The mean block length with which the stationary bootstrap errs least about the mean of such a series.

    At most a third of the series, and at least its length's cube root: the rule takes weak correlations of short
    series for chance, and intervals that are a little wide do less harm than ones that are too narrow.
    """
    size = len(series)
    covariance = _autocovariance(series)
    if size < 8 or covariance[0] <= 0:
        return 1.0
    least = float(size ** (1 / 3))
    quiet = 2 * math.sqrt(math.log10(size) / size)
    run = max(5, math.ceil(math.sqrt(math.log10(size))))
    longest = min(math.ceil(math.sqrt(size)) + run, size // 2)
    loud = np.flatnonzero(np.abs(covariance[1 : longest + 1] / covariance[0]) >= quiet) + 1
    last = 0
    for lag in loud:
        if lag > last + run:
            break
        last = int(lag)
    lags = np.arange(-2 * last, 2 * last + 1)
    weights = np.clip(2 * (1 - np.abs(lags) / max(2 * last, 1)), 0, 1) if last else np.ones(1)
    weighted = weights * covariance[np.minimum(np.abs(lags), size - 1)]
    slope, level = float(np.sum(weighted * np.abs(lags))), float(np.sum(weighted))
    if level <= 0:
        return least
    return float(np.clip((slope**2 / level**2) ** (1 / 3) * least, least, size / 3))


def resample(size: int, length: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Places in one replicate of a series: blocks of mean length ``length``, begun anywhere, over the end and on."""
    jumps = rng.random(size) < 1 / length
    jumps[0] = True
    begins = np.flatnonzero(jumps)
    lengths = np.diff(np.append(begins, size))
    starts = rng.integers(0, size, len(begins))
    return np.asarray((np.repeat(starts - begins, lengths) + np.arange(size)) % size, np.int64)


def quantile_ratio(below: Floats, above: Floats, share: float, seed: int) -> Resampled:
    """A quantile of ``above`` over that of ``below``; two series in time, independent of each other."""
    rng = np.random.default_rng(seed)

    def drawn(series: Floats) -> Floats:
        # Neighbours are alike in whether they exceed the quantile: that is what the blocks have to keep together.
        length = block_length((series > _quantile(series, share)).astype(float))
        places = (resample(len(series), length, rng) for _ in range(REPLICATES))
        return np.array([_quantile(series[one], share) for one in places])

    value = _quantile(above, share) / _quantile(below, share)
    return Resampled(value, drawn(above) / drawn(below))


def _quantile(series: Floats, share: float) -> float:
    return float(np.quantile(series, share, method="inverted_cdf"))


def mean(series: Floats, seed: int) -> Resampled:
    """The mean of a series in time."""
    rng = np.random.default_rng(seed)
    length = block_length(series)
    drawn = [float(series[resample(len(series), length, rng)].mean()) for _ in range(REPLICATES)]
    return Resampled(float(series.mean()), np.array(drawn))


def jain(shares: Sequence[float] | Floats) -> float:
    """Jain's index: 1 where all have the same, 1/n where one has everything (Jain, Chiu and Hawe, DEC-TR-301, 1984).

    1 where nobody has anything.
    """
    got = np.asarray(shares, float)
    squares = float(np.sum(got**2))
    return 1.0 if squares <= 0 else float(np.sum(got)) ** 2 / (len(got) * squares)


def warm_up(latencies: Sequence[float] | Floats) -> int:
    """How many of the first requests of a run are its warm-up: MSER-5 (White, Simulation 69, 1997) on the logarithms.

    It cuts where the mean of the rest is known best, and at most half. Logarithms, as latencies are skewed and one
    slow request would else decide. What is cut must also begin otherwise than the rest goes on: its first half's
    median lies outside the rest's quartiles, and differs by a twentieth at least. MSER alone would cut up to the end
    of any disturbance in the middle of a steady run, and a verdict may not look away from those.
    """
    logs = np.log(np.maximum(np.asarray(latencies, float), 1e-6))
    batches = logs[: len(logs) // _BATCH * _BATCH].reshape(-1, _BATCH).mean(axis=1)
    most = int(len(batches) * WARM_UP_MOST)
    if len(batches) < _FEWEST_BATCHES:
        return 0
    left = np.arange(len(batches), 0, -1)
    sums, squares = np.cumsum(batches[::-1])[::-1], np.cumsum(batches[::-1] ** 2)[::-1]
    errors = (squares - sums**2 / left) / left**2
    cut = int(np.argmin(errors[: most + 1])) * _BATCH
    if not cut:
        return 0
    low, middle, high = np.quantile(logs[cut:], [0.25, 0.5, 0.75])
    begins = float(np.median(logs[: (cut + 1) // 2]))
    otherwise = not low <= begins <= high and abs(begins - middle) > _MATERIAL
    return cut if otherwise else 0
