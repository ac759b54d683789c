"""What is told, as OTLP: the OpenTelemetry protocol's own protobuf messages (https://opentelemetry.io/docs/specs/otlp/).

The messages are built here and not by OpenTelemetry's SDK: that one, its exporters and the HTTP library beneath read
some forty environment variables, proxies among them, and follow redirects. Nothing but the country's own file may say
where telemetry goes (R11); see docs/decisions/0025.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1 import metrics_pb2 as wire
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as traces

from serving.records.telemetry.instruments import Distribution, Labels, Reading
from serving.records.telemetry.logs import Entry
from serving.records.telemetry.metrics import Kind, Metric
from serving.records.telemetry.schema import SEMCONV, Value
from serving.records.telemetry.trace import Ended

_SCOPE = InstrumentationScope(name="domicile")


class Encoder:
    """Encodes for one process, which ``own`` attributes describe."""

    def __init__(self, own: Mapping[str, Value], begun: int) -> None:
        """
        Args:
            begun: since when the process counts, in nanoseconds since the epoch.
        """
        self._resource = Resource(attributes=_attributes(own))
        self._begun = begun

    def spans(self, spans: Iterable[Ended]) -> bytes:
        scope = traces.ScopeSpans(scope=_SCOPE, spans=map(_span, spans), schema_url=SEMCONV)
        one = traces.ResourceSpans(resource=self._resource, scope_spans=[scope], schema_url=SEMCONV)
        return bytes(ExportTraceServiceRequest(resource_spans=[one]).SerializeToString())

    def logs(self, entries: Iterable[Entry]) -> bytes:
        scope = ScopeLogs(scope=_SCOPE, log_records=map(_log, entries), schema_url=SEMCONV)
        one = ResourceLogs(resource=self._resource, scope_logs=[scope], schema_url=SEMCONV)
        return bytes(ExportLogsServiceRequest(resource_logs=[one]).SerializeToString())

    def metrics(self, readings: Iterable[Reading], now: int) -> bytes:
        scope = wire.ScopeMetrics(
            scope=_SCOPE, metrics=[self._metric(reading, now) for reading in readings], schema_url=SEMCONV
        )
        one = wire.ResourceMetrics(resource=self._resource, scope_metrics=[scope], schema_url=SEMCONV)
        return bytes(ExportMetricsServiceRequest(resource_metrics=[one]).SerializeToString())

    def _metric(self, reading: Reading, now: int) -> wire.Metric:
        metric = reading.metric
        made = wire.Metric(name=metric.name, unit=metric.unit, description=metric.about)
        cumulative = wire.AGGREGATION_TEMPORALITY_CUMULATIVE
        match metric.kind:
            case Kind.COUNTER:
                made.sum.CopyFrom(
                    wire.Sum(
                        data_points=self._numbers(reading, now), is_monotonic=True, aggregation_temporality=cumulative
                    )
                )
            case Kind.GAUGE:
                made.gauge.CopyFrom(wire.Gauge(data_points=self._numbers(reading, now)))
            case Kind.HISTOGRAM:
                made.histogram.CopyFrom(
                    wire.Histogram(data_points=self._buckets(reading, now), aggregation_temporality=cumulative)
                )
        return made

    def _numbers(self, reading: Reading, now: int) -> list[wire.NumberDataPoint]:
        return [
            wire.NumberDataPoint(
                attributes=_labels(reading.metric, labels),
                start_time_unix_nano=self._begun,
                time_unix_nano=now,
                as_double=point,
            )
            for labels, point in reading.points.items()
            if not isinstance(point, Distribution)
        ]

    def _buckets(self, reading: Reading, now: int) -> list[wire.HistogramDataPoint]:
        return [
            wire.HistogramDataPoint(
                attributes=_labels(reading.metric, labels),
                start_time_unix_nano=self._begun,
                time_unix_nano=now,
                count=sum(point.counts),
                sum=point.total,
                bucket_counts=point.counts,
                explicit_bounds=reading.metric.bounds,
            )
            for labels, point in reading.points.items()
            if isinstance(point, Distribution)
        ]


def _span(span: Ended) -> traces.Span:
    kinds = traces.Span
    kind = kinds.SPAN_KIND_SERVER if span.serves else kinds.SPAN_KIND_CLIENT if span.asks else kinds.SPAN_KIND_INTERNAL
    said = {**span.attributes, "error.type": span.error} if span.error else span.attributes
    code = traces.Status.STATUS_CODE_ERROR if span.error else traces.Status.STATUS_CODE_UNSET
    return traces.Span(
        trace_id=bytes.fromhex(span.trace),
        span_id=bytes.fromhex(span.id),
        parent_span_id=bytes.fromhex(span.parent),
        flags=1,
        name=span.name,
        kind=kind,
        start_time_unix_nano=span.begun,
        end_time_unix_nano=span.ended,
        attributes=_attributes(said),
        status=traces.Status(code=code),
    )


def _log(entry: Entry) -> LogRecord:
    return LogRecord(
        time_unix_nano=entry.time,
        observed_time_unix_nano=entry.time,
        severity_number=entry.severity,  # type: ignore[arg-type] # an enum's number
        severity_text=entry.level,
        body=AnyValue(string_value=entry.body) if entry.body else None,
        attributes=_attributes(entry.attributes),
    )


def _labels(metric: Metric, labels: Labels) -> list[KeyValue]:
    return _attributes({name: value for name, value in zip(metric.labels, labels, strict=True) if value})


def _attributes(said: Mapping[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value)) for name, value in said.items()]


def _value(value: Value) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(string_value=value)
