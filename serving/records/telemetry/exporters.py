"""What the SDK hands over, encoded by OpenTelemetry's own encoders and given to the country's courier."""

from __future__ import annotations

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


class SpansOut(SpanExporter):
    """Brings spans, the oldest first."""

    def __init__(self, courier: Courier) -> None:
        self._courier = courier

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        taken = self._courier.bring(encode_spans(spans).SerializeToString(), len(spans))
        return SpanExportResult.SUCCESS if taken else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._courier.close()


class LogsOut(LogRecordExporter):
    """Brings log records, the oldest first."""

    def __init__(self, courier: Courier) -> None:
        self._courier = courier

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        taken = self._courier.bring(encode_logs(batch).SerializeToString(), len(batch))
        return LogRecordExportResult.SUCCESS if taken else LogRecordExportResult.FAILURE

    def shutdown(self) -> None:
        self._courier.close()

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


class FiguresOut(MetricExporter):
    """Offers figures once: the next ones say all that these do."""

    def __init__(self, courier: Courier) -> None:
        super().__init__()
        self._courier = courier

    def export(self, metrics_data: MetricsData, timeout_millis: float = 0, **kwargs: object) -> MetricExportResult:
        taken = self._courier.offer(encode_metrics(metrics_data).SerializeToString())
        return MetricExportResult.SUCCESS if taken else MetricExportResult.FAILURE

    def shutdown(self, timeout_millis: float = 0, **kwargs: object) -> None:
        self._courier.close()

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True
