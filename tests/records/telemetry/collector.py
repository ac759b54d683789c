"""A collector of the test's own on loopback: takes OTLP over HTTP and keeps what it was told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic, sleep
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from serving.records.telemetry import courier

_KINDS: Mapping[str, Any] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
}
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Span:
    """A span as it arrived."""

    service: str
    trace: str
    id: str
    parent: str
    name: str
    begun: int
    ended: int
    failed: bool
    said: Mapping[str, object]


@dataclass
class FakeCollector:
    """What came, and what is answered."""

    endpoint: str
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Answers for the next posts; then 200."""
    redirects_to: str = ""
    asked: int = 0
    """Requests of any kind, good ones or not."""

    def spans(self) -> list[Span]:
        return [
            Span(
                str(_said(resource.resource.attributes)["service.name"]),
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.name,
                span.start_time_unix_nano,
                span.end_time_unix_nano,
                span.status.code == 2,
                _said(span.attributes),
            )
            for body in self._of("/v1/traces")
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def logs(self) -> list[tuple[str, Mapping[str, object]]]:
        return [
            (record.body.string_value, _said(record.attributes))
            for body in self._of("/v1/logs")
            for resource in ExportLogsServiceRequest.FromString(body).resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def metrics(self) -> dict[str, Any]:
        """The newest of each name."""
        return {
            metric.name: metric
            for body in self._of("/v1/metrics")
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def processes(self) -> list[Mapping[str, object]]:
        """What each post says of the process that it came from."""
        fields = {"/v1/traces": "resource_spans", "/v1/logs": "resource_logs", "/v1/metrics": "resource_metrics"}
        return [
            _said(resource.resource.attributes)
            for path, body in self.bodies
            for resource in getattr(_KINDS[path].FromString(body), fields[path])
        ]

    def everything(self) -> bytes:
        """All bytes that came, for a look at what must not be among them."""
        return b"\n".join(body for _, body in self.bodies)

    def until(self, there: Callable[[], bool]) -> None:
        """Wait for something to have arrived."""
        assert in_time(there), f"only {[path for path, _ in self.bodies]} arrived"

    def _of(self, path: str) -> list[bytes]:
        return [body for at, body in self.bodies if at == path]


def in_time(true: Callable[[], bool]) -> bool:
    """Whether it is true before patience ends."""
    deadline = monotonic() + PATIENCE_S
    while not true() and monotonic() < deadline:
        sleep(0.02)
    return true()


def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have couriers of this test go often."""
    monkeypatch.setattr(courier, "PERIOD_S", 0.05)


@contextmanager
def collecting() -> Iterator[FakeCollector]:
    class Asked(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def parse_request(self) -> bool:
            collector.asked += 1
            return super().parse_request()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = collector.statuses.pop(0) if collector.statuses else 200
            if status == 200:
                assert self.headers["content-type"] == "application/x-protobuf"
                _KINDS[self.path].FromString(body)
                collector.bodies.append((self.path, body))
            self.send_response(status)
            if status in (301, 302, 307, 308):
                self.send_header("location", collector.redirects_to)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Keeps the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    server.daemon_threads = True
    collector = FakeCollector(f"http://127.0.0.1:{server.server_address[1]}")
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        serving.join()


def _said(attributes: Any) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
