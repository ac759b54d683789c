"""The process's figures: instruments of the SDK, with nothing in them that the schema does not describe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, Observation

from serving.records.telemetry.metrics import Kind, Metric
from serving.records.telemetry.schema import Schema

Labels = tuple[str, ...]
"""Values in the order of :attr:`Metric.labels`; an empty one is a label that is not there."""
_Said = dict[str, str]


class Instruments:
    """The metrics of one process. May be used from any thread."""

    def __init__(self, schema: Schema, meter: Meter) -> None:
        self._schema = schema
        self._meter = meter
        self._counters: dict[Metric, Counter] = {}
        self._histograms: dict[Metric, Histogram] = {}
        self._described: dict[tuple[Metric, Labels], _Said] = {}

    def add(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """Count."""
        said = self._said(metric, labels)
        if said is not None:
            counter = self._counters.get(metric)
            if counter is None:
                made = self._meter.create_counter(metric.name, metric.unit, metric.about)
                counter = self._counters.setdefault(metric, made)
            counter.add(by, said)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Put a value into its bucket."""
        said = self._said(metric, labels)
        if said is not None:
            histogram = self._histograms.get(metric)
            if histogram is None:
                made = self._meter.create_histogram(metric.name, metric.unit, metric.about)
                histogram = self._histograms.setdefault(metric, made)
            histogram.record(value, said)

    def read(self, metric: Metric, value: Callable[[], Mapping[Labels, float]]) -> None:
        """Ask for a gauge's, or a counter's, values whenever somebody reads it."""

        def observed(_: CallbackOptions) -> Iterator[Observation]:
            for labels, number in value().items():
                said = self._said(metric, labels)
                if said is not None:
                    yield Observation(number, said)

        meter = self._meter
        create = meter.create_observable_gauge if metric.kind is Kind.GAUGE else meter.create_observable_counter
        create(metric.name, [observed], metric.unit, metric.about)

    def _said(self, metric: Metric, labels: Labels) -> _Said | None:
        """As the SDK takes them; looked at once for each set of labels that is described."""
        said = self._described.get((metric, labels))
        if said is not None:
            return said
        said = {name: value for name, value in zip(metric.labels, labels, strict=True) if value}
        if not all(self._schema.allows(name, value) for name, value in said.items()):
            return None
        return self._described.setdefault((metric, labels), said)
