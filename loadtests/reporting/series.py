"""A run's requests and samples as columns, windows of time and distributions: what the plots draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.record import OURS, Event, Kind, Outcome, Record, Run

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

OUTCOMES = tuple(Outcome)
MOST_WINDOWS = 200
MOST_TOKENS = 400_000
"""Of so many requests' inter-token times the distribution is drawn, taken evenly from the whole run."""
_WINDOWS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_REQUESTS_A_WINDOW = 20
_CAPACITY = "capacity"


@dataclass(frozen=True)
class Columns:
    """Requests as arrays with an entry each; NaN where a request has no such figure. Times in seconds."""

    records: tuple[Record, ...]

    @cached_property
    def intended(self) -> Floats:
        return np.array([one.intended for one in self.records], float)

    @cached_property
    def ended(self) -> Floats:
        return np.array([one.ended for one in self.records], float)

    @cached_property
    def first(self) -> Floats:
        return np.array([one.first for one in self.records], float)

    @cached_property
    def first_token_s(self) -> Floats:
        """NaN where the answer was not streamed, too: its first token is its end."""
        return np.where(self._plain, np.nan, self.first - self.intended)

    @cached_property
    def inter_token_s(self) -> Floats:
        return np.array([one.inter_token_s for one in self.records], float)

    @cached_property
    def end_to_end_s(self) -> Floats:
        """NaN where the request did not finish."""
        return np.where(self.is_(Outcome.FINISHED), self.ended - self.intended, np.nan)

    @cached_property
    def tokens(self) -> Floats:
        return np.array([one.output_tokens for one in self.records], float)

    @cached_property
    def _plain(self) -> Mask:
        return np.array([one.kind is Kind.CHAT_PLAIN for one in self.records], bool)

    @cached_property
    def _outcome(self) -> NDArray[np.int64]:
        order = {outcome: index for index, outcome in enumerate(OUTCOMES)}
        return np.array([order[one.outcome] for one in self.records], np.int64)

    def is_(self, outcome: Outcome) -> Mask:
        return np.asarray(self._outcome == OUTCOMES.index(outcome))

    def by(self, *names: str) -> dict[tuple[str, ...], Columns]:
        """Groups of the same values of these fields, in the values' order."""
        found: dict[tuple[str, ...], list[Record]] = {}
        for one in self.records:
            found.setdefault(tuple(str(getattr(one, name)) for name in names), []).append(one)
        return {key: Columns(tuple(found[key])) for key in sorted(found)}

    def tokens_between(self, edges: Floats) -> Floats:
        """Output tokens a second between each two edges, each answer's spread evenly from its first to its end."""
        there = np.isfinite(self.first) & (self.tokens > 0)
        begin, end = self.first[there], np.maximum(self.ended[there], self.first[there] + 1e-6)
        rate, gone = self.tokens[there] / (end - begin), np.zeros(len(edges))
        for index, edge in enumerate(edges):
            gone[index] = np.sum(rate * (np.clip(edge, begin, end) - begin))
        return np.diff(gone) / np.diff(edges)

    def inter_tokens(self) -> tuple[Floats, Floats]:
        """Seconds a token and how many tokens had them. Tokens that came together share the time they took."""
        records = [one for one in self.records if one.gaps and one.kind is not Kind.CHAT_PLAIN]
        stride = 1 + sum(len(one.gaps) for one in records) // MOST_TOKENS
        pairs = np.array([pair for one in records[::stride] for pair in one.gaps], float).reshape(-1, 2)
        pairs = pairs[pairs[:, 1] > 0]
        return pairs[:, 0] / pairs[:, 1], pairs[:, 1]


@dataclass(frozen=True)
class View:
    """One side of a run, as the report looks at it: without the capacity's measurement."""

    run: Run
    side: str = OURS

    @cached_property
    def requests(self) -> Columns:
        """What was asked where it belongs."""
        return Columns(tuple(one for one in self._ours if one.kind is not Kind.FOREIGN))

    @cached_property
    def foreign(self) -> Columns:
        """What was asked in another country than its key's."""
        return Columns(tuple(one for one in self._ours if one.kind is Kind.FOREIGN))

    @cached_property
    def _ours(self) -> tuple[Record, ...]:
        return tuple(one for one in self.run.records if one.side == self.side and one.phase != _CAPACITY)

    @cached_property
    def phases(self) -> list[tuple[float, float, str]]:
        """Begin, end and name of each, all its slices together."""
        found: dict[str, tuple[float, float]] = {}
        for one in self.run.plan.get("phases", ()):
            name, begin, end = str(one["name"]), float(one["begin"]), float(one["end"])
            known = found.get(name, (begin, end))
            found[name] = min(begin, known[0]), max(end, known[1])
        return [(begin, end, name) for name, (begin, end) in found.items()]

    @cached_property
    def faults(self) -> tuple[Event, ...]:
        return tuple(sorted((one for one in self.run.events if one.kind == "fault"), key=lambda one: one.at))

    @cached_property
    def interrupted(self) -> Event | None:
        """The interruption, if the run did not come to its end."""
        return next((one for one in self.run.events if one.kind.startswith("interrupt")), None)

    @cached_property
    def ends(self) -> float:
        """When the last thing happened, in seconds."""
        last = [one.ended for one in self.run.records] + [end for _, end, _ in self.phases if not self.interrupted]
        return max([*last, *(one.at for one in self.run.samples), *(one.at for one in self.run.events), 1.0])

    @cached_property
    def seconds(self) -> float:
        """For how long this side was sent anything: the sum of its slices, as far as the run came."""
        spans = [one for one in self.run.plan.get("phases", ()) if one.get("side", self.side) == self.side]
        return sum(max(0.0, min(self.ends, one["end"]) - min(self.ends, one["begin"])) for one in spans) or self.ends

    @property
    def targets(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """The countries of all sides, as the plan keeps them, by side and code."""
        sides = self.run.plan.get("targets", {}).get("sides", ())
        return {(side["name"], one["code"]): one for side in sides for one in side["countries"]}

    def sampled(self, source: str, name: str) -> dict[str, tuple[Floats, Floats]]:
        """Times and values of a figure, for each source that is or begins with ``source``."""
        found: dict[str, list[tuple[float, float]]] = {}
        for one in self.run.samples:
            if (one.source == source or one.source.startswith(f"{source}:")) and name in one.values:
                found.setdefault(one.source, []).append((one.at, float(one.values[name])))
        return {key: _columns(thin(found[key], 600)) for key in sorted(found)}


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[Floats, Floats]:
    array = np.array(sorted(pairs), float).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def thin(items: Sequence[Any], most: int) -> Sequence[Any]:
    """At most so many of them, evenly chosen."""
    return items[:: 1 + (len(items) - 1) // most] if items else items


def edges(ends: float, requests: int) -> Floats:
    """Edges of windows that hold some twenty requests each, and are not more than can be told apart."""
    enough = ends * _REQUESTS_A_WINDOW / max(requests, 1)
    window = next((one for one in _WINDOWS_S if one >= enough and ends / one <= MOST_WINDOWS), None)
    width = window or max(ends / MOST_WINDOWS, min(enough, ends / 10))
    return np.asarray(np.arange(0.0, ends + width, width), float)


def windowed(at: Floats, values: Floats, cuts: Floats, shares: Iterable[float]) -> list[Floats]:
    """Each quantile of the values in each window; NaN in windows that are empty."""
    wanted = list(shares)
    good = np.isfinite(values)
    at, values = at[good], values[good]
    order = np.argsort(at, kind="stable")
    bounds = np.searchsorted(at[order], cuts)
    found = np.full((len(wanted), len(cuts) - 1), np.nan)
    for index, (low, high) in enumerate(pairwise(bounds)):
        if high > low:
            found[:, index] = np.quantile(values[order[low:high]], wanted)
    return list(found)


def quantile(values: Floats, share: float) -> float:
    """NaN where there are no values."""
    good = values[np.isfinite(values)]
    return float(np.quantile(good, share)) if len(good) else float("nan")


def ecdf(values: Floats, weights: Floats | None = None, points: int = 240) -> tuple[Floats, Floats]:
    """The empirical distribution function at so many points, closer together in the tail."""
    good = np.isfinite(values)
    order = np.argsort(values[good], kind="stable")
    sorted_values = values[good][order]
    if not len(sorted_values):
        return np.array([]), np.array([])
    mass = np.cumsum(np.ones(len(order)) if weights is None else weights[good][order])
    shares = np.concatenate([np.linspace(0, 0.95, points // 2, endpoint=False), np.linspace(0.95, 1, points // 2)])
    places = np.minimum(np.searchsorted(mass, shares * mass[-1]), len(order) - 1)
    return sorted_values[places], shares
