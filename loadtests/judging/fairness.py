"""How evenly a country's organisations are served while they compete."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from loadtests.judging.statistics import Floats, jain
from loadtests.record import Record

WINDOW_S = 5.0
OUTPUT_COST = 2.0
"""What an output token costs in prompt tokens, as in Sheng et al., Fairness in Serving LLMs (OSDI 2024)."""

Spans = Iterable[tuple[float, float]]


def contested(records: Sequence[Record], weights: Mapping[str, float], spans: Spans) -> Floats:
    """Jain's index in each window in which organisations competed, in time order; empty where there were none.

    Organisations compete in a window of ``WINDOW_S`` in which at least two were backlogged: had a request under way
    all the time. Only those are compared, since whoever asks for less than its share is not treated unfairly by
    getting less. Each counts with its served tokens over its weight. Prompt tokens are served when the first token
    comes, those from the cache for nothing, and output tokens when they come.
    """
    edges = [(begin, begin + WINDOW_S) for span in spans for begin in _begins(*span)]
    if not edges or not records:
        return np.array([])
    busy = {id: _busy(own) for id, own in _by_organisation(records).items()}
    served = {id: _served(own) for id, own in _by_organisation(records).items()}
    found = []
    for begin, end in edges:
        backlogged = [id for id, stretches in busy.items() if any(a <= begin and end <= b for a, b in stretches)]
        if len(backlogged) > 1:
            found.append(jain([_between(*served[id], begin, end) / weights.get(id, 1.0) for id in backlogged]))
    return np.array(found, float)


def _begins(begin: float, end: float) -> Iterator[float]:
    whole = int((end - begin) / WINDOW_S + 1e-9)
    return (begin + WINDOW_S * index for index in range(whole))


def _by_organisation(records: Iterable[Record]) -> Mapping[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for one in records:
        found[one.organisation].append(one)
    return found


def _busy(records: Iterable[Record]) -> list[tuple[float, float]]:
    """The stretches in which at least one of the requests was under way."""
    stretches: list[tuple[float, float]] = []
    for begin, end in sorted((one.intended, one.ended) for one in records):
        if stretches and begin <= stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], max(end, stretches[-1][1]))
        else:
            stretches.append((begin, end))
    return stretches


def _served(records: Iterable[Record]) -> tuple[Floats, Floats]:
    """When something was served, and what had been served in all by then."""
    pieces = sorted(piece for one in records for piece in _pieces(one))
    array = np.array(pieces, float).reshape(-1, 2)
    return array[:, 0], np.concatenate([[0.0], np.cumsum(array[:, 1])])


def _pieces(record: Record) -> Iterator[tuple[float, float]]:
    if record.first is None:
        return
    now = record.first
    later = sum(count for _, count in record.gaps)
    at_once = max(record.output_tokens - later, 0)
    yield now, record.prompt_tokens - record.cached_tokens + OUTPUT_COST * at_once
    for gap, count in record.gaps:
        now += gap
        yield now, OUTPUT_COST * count


def _between(times: Floats, sums: Floats, begin: float, end: float) -> float:
    low, high = np.searchsorted(times, [begin, end])
    return float(sums[high] - sums[low])
