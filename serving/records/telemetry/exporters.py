"""What the SDK's processors hand over, encoded by OpenTelemetry's own encoders and given to the country's courier."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from serving.records.telemetry.courier import Courier

BATCH = 512
ROOM = 4096
"""Spans, and likewise log records, that may wait."""


class Losses:
    """How many of one kind the collector will never hear of.

    Where there is no room the SDK's queue lets the oldest go and counts none: whoever was told, was not handed over,
    and can be waiting no more is gone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told = 0
        self._handed = 0
        self._gone = 0
        self._refused = 0

    @property
    def count(self) -> int:
        return self._gone + self._refused

    def told(self) -> None:
        with self._lock:
            self._told += 1
            self._gone = max(self._gone, self._told - self._handed - ROOM)

    def handed(self, items: int) -> None:
        with self._lock:
            self._handed += items

    def refused(self, items: int) -> None:
        with self._lock:
            self._refused += items

    def settle(self) -> None:
        """Nothing is handed over any more."""
        with self._lock:
            self._gone = self._told - self._handed


class SpansOut(SpanExporter):
    """Brings spans, the oldest first."""

    def __init__(self, courier: Courier, losses: Losses) -> None:
        self._courier = courier
        self._losses = losses

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._losses.handed(len(spans))
        taken = self._courier.bring(encode_spans(spans).SerializeToString())
        if not taken:
            self._losses.refused(len(spans))
        return SpanExportResult.SUCCESS if taken else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._losses.settle()
        self._courier.hang_up()


class LogsOut(LogRecordExporter):
    """Brings log records, the oldest first."""

    def __init__(self, courier: Courier, losses: Losses) -> None:
        self._courier = courier
        self._losses = losses

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self._losses.handed(len(batch))
        taken = self._courier.bring(encode_logs(batch).SerializeToString())
        if not taken:
            self._losses.refused(len(batch))
        return LogRecordExportResult.SUCCESS if taken else LogRecordExportResult.FAILURE

    def shutdown(self) -> None:
        self._losses.settle()
        self._courier.hang_up()

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


class FiguresOut(MetricExporter):
    """Offers figures once: the next ones say all that these do."""

    def __init__(self, courier: Courier) -> None:
        super().__init__()
        self._courier = courier
        self.lost = 0

    def export(self, metrics_data: MetricsData, timeout_millis: float = 0, **kwargs: object) -> MetricExportResult:
        if self._courier.offer(encode_metrics(metrics_data).SerializeToString()):
            return MetricExportResult.SUCCESS
        self.lost += 1
        return MetricExportResult.FAILURE

    def shutdown(self, timeout_millis: float = 0, **kwargs: object) -> None:
        self._courier.hang_up()

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True
