"""The Prometheus page: text format 0.0.4, on a private port that no caller's address leads to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from serving.records.telemetry.instruments import Distribution, Labels, Reading
from serving.records.telemetry.metrics import Metric, exposed

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def page(readings: Iterable[Reading], own: Mapping[str, str]) -> str:
    """``own`` labels every series."""
    return "".join(line + "\n" for reading in readings for line in _lines(reading, own))


def _lines(reading: Reading, own: Mapping[str, str]) -> Iterator[str]:
    metric, name = reading.metric, reading.metric.exposed
    yield f"# HELP {name} {metric.about}"
    yield f"# TYPE {name} {metric.kind.value}"
    for labels, point in reading.points.items():
        said = _said(metric, labels, own)
        if isinstance(point, Distribution):
            yield from _series(name, metric, said, point)
        else:
            yield f"{name}{{{said}}} {point!r}"


def _series(name: str, metric: Metric, said: str, point: Distribution) -> Iterator[str]:
    for bound, count in zip((*map(repr, metric.bounds), "+Inf"), accumulate(point.counts), strict=True):
        yield f'{name}_bucket{{{said},le="{bound}"}} {count}'
    yield f"{name}_sum{{{said}}} {point.total!r}"
    yield f"{name}_count{{{said}}} {sum(point.counts)}"


def _said(metric: Metric, labels: Labels, own: Mapping[str, str]) -> str:
    pairs = {**own, **{name: value for name, value in zip(metric.labels, labels, strict=True) if value}}
    # Every value is of the schema, which has nothing that would need a backslash.
    return ",".join(f'{exposed(name)}="{value}"' for name, value in pairs.items())
