"""The process's figures: added up in dictionaries, some 0.3 µs each, and read by the SDK whenever somebody reads it.

The SDK's own counters and histograms take 5 µs each and reader, and more in a process that does other things as well
(docs/decisions/0025). Written by one event loop and read by any thread: a reading copies, and may be a request older
for one metric than for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from serving.records.telemetry.distributions import Distributions
from serving.records.telemetry.metrics import Kind, Labels, Metric
from serving.records.telemetry.schema import Schema


class Instruments:
    """The metrics of one process. Nothing is in them that the schema does not describe."""

    def __init__(self, schema: Schema, meter: Meter, distributions: Distributions) -> None:
        self._schema = schema
        self._meter = meter
        self._numbers: dict[Metric, dict[Labels, float]] = {}
        self._distributions = distributions

    def add(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """Count."""
        numbers = self._numbers.get(metric)
        if numbers is None:
            numbers = self._numbers[metric] = {}
            self.read(metric, numbers.copy)
        if labels in numbers:
            numbers[labels] += by
        elif self._described(metric, labels):
            numbers[labels] = by

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Put a value into its bucket."""
        found = self._distributions.of(metric, labels)
        if found is None:
            if not self._described(metric, labels):
                return
            found = self._distributions.begin(metric, labels)
        found.add(value)

    def read(self, metric: Metric, value: Callable[[], Mapping[Labels, float]]) -> None:
        """Ask for a gauge's, or a counter's, values whenever somebody reads it."""

        def observed(_: CallbackOptions) -> Iterator[Observation]:
            for labels, number in value().items():
                if self._described(metric, labels):
                    yield Observation(float(number), metric.said(labels))

        meter = self._meter
        create = meter.create_observable_gauge if metric.kind is Kind.GAUGE else meter.create_observable_counter
        create(metric.name, [observed], metric.unit, metric.about)

    def _described(self, metric: Metric, labels: Labels) -> bool:
        return all(self._schema.allows(name, value) for name, value in metric.said(labels).items())
