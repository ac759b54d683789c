"""Figures of requests that can be drawn again, by blocks of time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from loadtests import words
from loadtests.judging.statistics import block_length
from loadtests.record import Outcome
from loadtests.reporting.promises import counted, kept
from loadtests.reporting.series import Columns, Floats, Mask, View

BLOCKS = 120
"""Into so many a run is cut, where no slices cut it already."""
SHORTEST_S = 1.0
_BINS = 2000
_QUANTILES = {
    "first token p50": ("first_token_s", 0.5),
    "first token p95": ("first_token_s", 0.95),
    "inter-token p50": ("inter_token_s", 0.5),
    "inter-token p95": ("inter_token_s", 0.95),
    "end to end p95": ("end_to_end_s", 0.95),
}


@dataclass(frozen=True)
class Blocks:
    """Stretches of time, each within a phase: begin, end, phase."""

    spans: tuple[tuple[float, float, str], ...]

    @classmethod
    def of(cls, view: View, whole: bool) -> Blocks:
        """The side's slices as they are, where ``whole``; else cut into about :data:`BLOCKS`."""
        spans = [
            (float(one["begin"]), min(float(one["end"]), view.ends), str(one["name"]))
            for one in view.run.plan.get("phases", ())
            if one.get("side", view.side) == view.side and float(one["begin"]) < view.ends
        ]
        if whole:
            return cls(tuple(spans))
        length = max(SHORTEST_S, sum(end - begin for begin, end, _ in spans) / BLOCKS)
        found = []
        for begin, end, name in spans:
            cuts = np.linspace(begin, end, max(1, round((end - begin) / length)) + 1).tolist()
            found += [(low, high, name) for low, high in pairwise(cuts)]
        return cls(tuple(found))

    def paired_with(self, other: Blocks) -> tuple[Blocks, Blocks]:
        """Both, the n-th slice of a phase here beside the n-th of the same phase there; those without one left out."""
        pairs = []
        for name in dict.fromkeys(name for _, _, name in self.spans):
            here, there = ([one for one in blocks.spans if one[2] == name] for blocks in (self, other))
            pairs += list(zip(here, there, strict=False))
        return Blocks(tuple(one for one, _ in pairs)), Blocks(tuple(one for _, one in pairs))

    @property
    def count(self) -> int:
        return len(self.spans)

    @cached_property
    def lengths(self) -> Floats:
        """In seconds."""
        return np.array([end - begin for begin, end, _ in self.spans])

    def draws(self, rng: np.random.Generator, times: int, series: Floats | None) -> Floats:
        """How often each block is in each resample, times × blocks.

        Drawn within each phase, in runs of neighbours as long as ``series``, a value for each block, asks for;
        one by one without it.
        """
        found = np.zeros((times, self.count))
        for name in dict.fromkeys(name for _, _, name in self.spans):
            places = np.array([index for index, span in enumerate(self.spans) if span[2] == name])
            drawn = places[_resampled(len(places), 1.0 if series is None else block_length(series[places]), times, rng)]
            rows = np.repeat(np.arange(times), len(places))
            np.add.at(found, (rows, drawn.ravel()), 1)
        return found

    def place(self, at: Floats) -> NDArray[np.int64]:
        """In which block each moment lies, -1 where in none."""
        found = np.full(len(at), -1, np.int64)
        for index, (begin, end, _) in enumerate(self.spans):
            found[(at >= begin) & (at < end)] = index
        return found


def _resampled(size: int, length: float, times: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """What :func:`loadtests.judging.statistics.resample` draws, so many times: times × size places."""
    jumps = rng.random((times, size)) < 1 / length
    jumps[:, 0] = True
    at = np.arange(size)
    begun = np.maximum.accumulate(np.where(jumps, at, 0), axis=1)
    starts = np.take_along_axis(rng.integers(0, size, (times, size)), begun, axis=1)
    return np.asarray((starts + at - begun) % size, np.int64)


@dataclass(frozen=True)
class Figures:
    """The compared figures of some requests. The promise counts per request, so the time between tokens does, too."""

    blocks: Blocks
    columns: Mapping[str, Floats]
    good: Mask
    failed: Mask
    counted: Mask
    tokens: Floats
    place: NDArray[np.int64]

    @cached_property
    def pulse(self) -> Floats:
        """How long requests of each block took, as the mean of logarithms; 0 where none did."""
        took = self.columns["end_to_end_s"]
        there = (took > 0) & (self.place >= 0)
        counted = np.bincount(self.place[there], minlength=self.blocks.count)
        total = np.bincount(self.place[there], np.log(took[there]), self.blocks.count)
        return np.asarray(np.divide(total, counted, out=np.zeros(self.blocks.count), where=counted > 0), float)

    @property
    def names(self) -> tuple[str, ...]:
        return ("goodput", *_QUANTILES, "tokens/s", "failures")

    @property
    def requests(self) -> int:
        return len(self.good)

    def more_is_better(self, name: str) -> bool:
        return name in ("goodput", "tokens/s")

    def written(self, name: str) -> Callable[[float], str]:
        """How its values are shown."""
        return {"goodput": words.share, "failures": words.share, "tokens/s": words.digits}.get(name, words.seconds)

    def value(self, name: str) -> float:
        if name in _QUANTILES:
            column, share = _QUANTILES[name]
            values = self.columns[column][np.isfinite(self.columns[column])]
            return float(np.quantile(values, share)) if len(values) else float("nan")
        top, bottom = self._sums(name)
        return float(top.sum() / bottom.sum()) if bottom.sum() else float("nan")

    def ratio(self, other: Figures, name: str) -> float:
        """The other's value over this one's. Failures get half a request more on both sides, as there may be none."""
        if name == "failures":
            once = np.ones((1, self.blocks.count)), np.ones((1, other.blocks.count))
            return float(self.ratios(other, name, *once)[0])
        mine = self.value(name)
        return other.value(name) / mine if mine else float("nan")

    def ratios(self, other: Figures, name: str, here: Floats, there: Floats) -> Floats:
        """The same in each resample."""
        if name == "failures" and not (self.failed.any() or other.failed.any()):
            return np.full(len(here), np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(other._resampled(name, there) / self._resampled(name, here))

    def _resampled(self, name: str, draws: Floats) -> Floats:
        if name in _QUANTILES:
            column, share = _QUANTILES[name]
            return self._quantiles(self.columns[column], share, draws)
        top, bottom = self._sums(name)
        more = 0.5 if name == "failures" else 0.0
        return np.asarray((draws @ top + more) / (draws @ bottom + 2 * more))

    def _sums(self, name: str) -> tuple[Floats, Floats]:
        """Numerator and denominator of a mean, by block."""
        if name == "tokens/s":
            return self._by_block(self.tokens), self.blocks.lengths
        return self._by_block((self.good if name == "goodput" else self.failed) & self.counted), self._by_block(
            self.counted
        )

    def _by_block(self, values: Floats | Mask) -> Floats:
        inside = self.place >= 0
        return np.asarray(np.bincount(self.place[inside], values[inside].astype(float), self.blocks.count), float)

    def _quantiles(self, values: Floats, share: float, draws: Floats) -> Floats:
        """Weighted quantiles, from counts of each block in each of so many bins as make no visible difference."""
        good = np.isfinite(values) & (self.place >= 0)
        if not good.any():
            return np.full(len(draws), np.nan)
        edges = np.unique(np.quantile(values[good], np.linspace(0, 1, min(_BINS, int(good.sum())))))
        bins = np.minimum(np.searchsorted(edges, values[good], side="left"), len(edges) - 1)
        counts = np.zeros((self.blocks.count, len(edges)))
        np.add.at(counts, (self.place[good], bins), 1)
        mass = np.cumsum(draws @ counts, axis=1)
        wanted = np.argmax(mass >= share * mass[:, -1:], axis=1)
        return np.where(mass[:, -1] > 0, edges[wanted], np.nan)


def measured(view: View, requests: Columns, blocks: Blocks) -> Figures:
    """The figures of some of a view's requests. What the load test itself left is neither good nor bad."""
    return Figures(
        blocks,
        {name: getattr(requests, name) for name in dict(_QUANTILES.values())},
        kept(view, requests),
        requests.is_(Outcome.FAILED),
        counted(view, requests),
        requests.tokens,
        blocks.place(requests.intended),
    )
