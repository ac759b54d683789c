"""Where figures are kept between two readings: counts by label values, some 0.3 µs each.

Written by one event loop and read by any thread: a reading copies, and may be a request older for one metric than for
the next.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from serving.records.telemetry.metrics import Kind, Metric
from serving.records.telemetry.schema import Schema

Labels = tuple[str, ...]
"""Values in the order of :attr:`Metric.labels`; an empty one is a label that is not there."""


@dataclass(slots=True)
class Distribution:
    """Counts of what fell into each bucket, the last being all above; and their sum."""

    counts: list[int]
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric at one moment."""

    metric: Metric
    points: Mapping[Labels, float | Distribution]


class Instruments:
    """The metrics of one process."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._numbers: dict[Metric, dict[Labels, float]] = {}
        self._distributions: dict[Metric, dict[Labels, Distribution]] = {}
        self._gauges: dict[Metric, Callable[[], Mapping[Labels, float]]] = {}

    def add(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Count."""
        numbers = self._numbers.get(metric)
        if numbers is None:
            numbers = self._numbers.setdefault(metric, {})
        if labels in numbers:
            numbers[labels] += by
        elif self._described(metric, labels):
            numbers[labels] = by

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Put a value into its bucket."""
        distributions = self._distributions.get(metric)
        if distributions is None:
            distributions = self._distributions.setdefault(metric, {})
        found = distributions.get(labels)
        if found is None:
            if not self._described(metric, labels):
                return
            found = distributions[labels] = Distribution([0] * (len(metric.bounds) + 1))
        found.counts[bisect_left(metric.bounds, value)] += 1
        found.total += value

    def read(self, metric: Metric, value: Callable[[], Mapping[Labels, float]]) -> None:
        """Ask for a gauge's, or a counter's, values whenever somebody reads it."""
        self._gauges[metric] = value

    def readings(self) -> Iterator[Reading]:
        """All metrics that there is something to say of."""
        for metric, numbers in self._numbers.copy().items():
            if numbers:
                yield Reading(metric, numbers.copy())
        for metric, distributions in self._distributions.copy().items():
            if not distributions:
                continue
            copies = {labels: Distribution(list(one.counts), one.total) for labels, one in distributions.copy().items()}
            yield Reading(metric, copies)
        for metric, value in self._gauges.copy().items():
            points = {labels: number for labels, number in value().items() if self._described(metric, labels)}
            if points:
                yield Reading(metric, points)

    def _described(self, metric: Metric, labels: Labels) -> bool:
        """Looked at once for each set of labels that is kept."""
        assert len(labels) == len(metric.labels), metric.name
        assert metric.kind is not Kind.HISTOGRAM or metric.bounds, metric.name
        return all(
            not value or self._schema.allows(name, value) for name, value in zip(metric.labels, labels, strict=True)
        )
