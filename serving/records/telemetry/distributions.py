"""Histograms as the SDK's data, added up here: it can ask for a counter's or a gauge's values, and for no histogram's.

OpenTelemetry's specification has a place for this, the metric producer, which the SDK for Python lacks
(https://opentelemetry.io/docs/specs/otel/metrics/sdk/#metricproducer): its readers are given ours along with its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import replace
from time import time_ns

from opentelemetry.sdk.metrics.export import AggregationTemporality, Histogram, HistogramDataPoint, MetricsData
from opentelemetry.sdk.metrics.export import Metric as Reading

from serving.records.telemetry.metrics import Labels, Metric


class Distribution:
    """Counts of what fell into each bucket, the last being all above; and their sum."""

    __slots__ = ("_begun", "_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._begun = time_ns()

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def point(self, said: Mapping[str, str], now: int) -> HistogramDataPoint:
        counts = self._counts.copy()
        return HistogramDataPoint(
            attributes=said,
            start_time_unix_nano=self._begun,
            time_unix_nano=now,
            count=sum(counts),
            sum=self._total,
            bucket_counts=counts,
            explicit_bounds=self._bounds,
            # Left out, as the protocol allows: they would be single requests' values.
            min=None,  # type: ignore[arg-type]
            max=None,  # type: ignore[arg-type]
        )


class Distributions:
    """The histograms of one process."""

    def __init__(self) -> None:
        self._found: dict[Metric, dict[Labels, Distribution]] = {}

    def of(self, metric: Metric, labels: Labels) -> Distribution | None:
        points = self._found.get(metric)
        return points.get(labels) if points is not None else None

    def begin(self, metric: Metric, labels: Labels) -> Distribution:
        made = Distribution(metric.bounds)
        return self._found.setdefault(metric, {}).setdefault(labels, made)

    def joined(self, read: MetricsData) -> MetricsData:
        """What the SDK has read, and these."""
        (process,) = read.resource_metrics
        (scope,) = process.scope_metrics
        ours = [_reading(metric, points.copy()) for metric, points in self._found.copy().items()]
        scopes = [replace(scope, metrics=[*scope.metrics, *ours])]
        return MetricsData([replace(process, scope_metrics=scopes)])


def _reading(metric: Metric, points: Mapping[Labels, Distribution]) -> Reading:
    now = time_ns()
    data = Histogram(
        [point.point(metric.said(labels), now) for labels, point in points.items()], AggregationTemporality.CUMULATIVE
    )
    return Reading(metric.name, metric.about, metric.unit, data)
