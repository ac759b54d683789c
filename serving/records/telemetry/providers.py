"""OpenTelemetry's SDK, on a short leash: every parameter that it would look for in the environment is given here.

Its providers are objects of one country's telemetry. None is made the process's own (``set_tracer_provider`` and the
like), so what other libraries tell to whoever listens does not come here, and what is told here goes nowhere else.
"""

from __future__ import annotations

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk._logs import LoggerProvider, LogRecordLimits, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from prometheus_client import CollectorRegistry

from serving.records.telemetry import courier
from serving.records.telemetry.courier import Courier
from serving.records.telemetry.distributions import Distributions
from serving.records.telemetry.exporters import FiguresOut, LogsOut, SpansOut

METRICS_PERIODS = 5
"""Figures go with each so many-th period."""
_OWN_LABELS = frozenset({"domicile.country", "domicile.site"})
"""What of the process stands in every series of the Prometheus page."""
_MOST, _LONGEST = 32, 256
_SPAN = SpanLimits(
    max_attributes=_MOST,
    max_span_attributes=_MOST,
    max_attribute_length=_LONGEST,
    max_span_attribute_length=_LONGEST,
    # Neither is in the schema. The SDK writes an exception's text into an event, which is no place for it (R7).
    max_events=0,
    max_links=0,
    max_event_attributes=0,
    max_link_attributes=0,
)
_LOG = LogRecordLimits(
    max_attributes=_MOST,
    max_log_record_attributes=_MOST,
    max_attribute_length=_LONGEST,
    max_log_record_attribute_length=_LONGEST,
)


def tracer_provider(resource: Resource, way: Courier) -> TracerProvider:
    """Whoever asks it for a span wants it told."""
    provider = TracerProvider(
        ALWAYS_ON,
        resource,
        shutdown_on_exit=False,
        id_generator=RandomIdGenerator(),
        span_limits=_SPAN,
        meter_provider=NoOpMeterProvider(),
    )
    provider.add_span_processor(_SpanQueue(way))
    return provider


def logger_provider(resource: Resource, way: Courier) -> LoggerProvider:
    provider = LoggerProvider(
        resource, shutdown_on_exit=False, meter_provider=NoOpMeterProvider(), log_record_limits=_LOG
    )
    provider.add_log_record_processor(_LogQueue(way))
    return provider


def meter_provider(
    resource: Resource, registry: CollectorRegistry, distributions: Distributions, way: Courier | None
) -> MeterProvider:
    """
    Args:
        registry: where Prometheus reads.
        way: to the collector, where there is one.
    """
    readers: list[MetricReader] = [_Page(registry, distributions)]
    if way is not None:
        readers.append(_Clock(FiguresOut(way), distributions))
    return MeterProvider(readers, resource, exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False)


class _Page(PrometheusMetricReader):
    """Reads when Prometheus does."""

    def __init__(self, registry: CollectorRegistry, distributions: Distributions) -> None:
        super().__init__(
            disable_target_info=True,
            scope_info_enabled=False,
            resource_attribute_filter=_OWN_LABELS.__contains__,
            registry=registry,
        )
        self._distributions = distributions

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 0, **kwargs: object) -> None:
        super()._receive_metrics(self._distributions.joined(metrics_data), timeout_millis, **kwargs)


class _Clock(PeriodicExportingMetricReader):
    """Reads from time to time, for the collector."""

    def __init__(self, out: FiguresOut, distributions: Distributions) -> None:
        # Before the thread that the SDK starts may look for it.
        self._distributions = distributions
        super().__init__(
            out,
            export_interval_millis=courier.PERIOD_S * METRICS_PERIODS * 1000,
            export_timeout_millis=courier.CLOSE_S * 1000,
        )

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 0, **kwargs: object) -> None:
        super()._receive_metrics(self._distributions.joined(metrics_data), timeout_millis, **kwargs)


class _SpanQueue(BatchSpanProcessor):
    def __init__(self, way: Courier) -> None:
        super().__init__(
            SpansOut(way),
            max_queue_size=courier.ROOM,
            schedule_delay_millis=courier.PERIOD_S * 1000,
            max_export_batch_size=courier.BATCH,
            export_timeout_millis=courier.TIMEOUT_S * 1000,
            meter_provider=NoOpMeterProvider(),
        )
        self._way = way

    def on_end(self, span: ReadableSpan) -> None:
        super().on_end(span)
        self._way.told()


class _LogQueue(BatchLogRecordProcessor):
    def __init__(self, way: Courier) -> None:
        super().__init__(
            LogsOut(way),
            schedule_delay_millis=courier.PERIOD_S * 1000,
            max_export_batch_size=courier.BATCH,
            export_timeout_millis=courier.TIMEOUT_S * 1000,
            max_queue_size=courier.ROOM,
            meter_provider=NoOpMeterProvider(),
        )
        self._way = way

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        super().on_emit(log_record)
        self._way.told()
