"""The way to the collector: what is told arrives, late rather than never, and nowhere else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace

from serving.records.telemetry import courier, metrics
from serving.records.telemetry.schema import Span
from serving.records.telemetry.telemetry import Telemetry
from tenants.country import Collector
from tenants.country import Telemetry as Telling
from tenants.registry import load_country
from tests.house import SHIPPED
from tests.records.telemetry.collector import FakeCollector, collecting, hasty, in_time

EE = load_country(SHIPPED / "ee")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    hasty(monkeypatch)


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    with collecting() as found:
        yield found


def to(endpoint: str) -> Telemetry:
    telling = Telling(collector=Collector(endpoint=endpoint), sampling=1.0)
    telemetry = Telemetry.open(EE.model_copy(update={"telemetry": telling}), "domicile-gateway", "ee-test")
    telemetry.instruments.add(metrics.RECEIPTS)
    return telemetry


def tell(telemetry: Telemetry, number: int) -> None:
    """One span."""
    trace = telemetry.sampled()
    assert trace is not None
    trace.told(Span.QUEUE, 10, 20, {"domicile.attempt": number})


def lost(telemetry: Telemetry, signal: str = "trace") -> float:
    return telemetry.dropped()[signal,]


def numbers(collector: FakeCollector) -> list[object]:
    return [span.said["domicile.attempt"] for span in collector.spans()]


def test_what_is_told_arrives(collector: FakeCollector) -> None:
    way = to(collector.endpoint)
    tell(way, 0)
    collector.until(lambda: bool(collector.spans()))
    way.close()
    (came,) = collector.spans()
    assert (came.service, came.name, came.begun, came.ended) == ("domicile-gateway", "queue", 10, 20)
    assert came.parent
    assert collector.metrics()["domicile.receipts"].sum.is_monotonic
    assert way.dropped() == {("trace",): 0, ("log",): 0, ("metric",): 0, ("attribute",): 0}


@pytest.mark.parametrize("status", [500, 503, 429])
def test_what_a_collector_cannot_take_now_is_brought_again_in_order(collector: FakeCollector, status: int) -> None:
    collector.statuses = [status, status]
    way = to(collector.endpoint)
    for number in range(3):
        tell(way, number)
    collector.until(lambda: len(numbers(collector)) == 3)
    way.close()
    assert numbers(collector) == [0, 1, 2]
    assert lost(way) == 0


def test_what_it_will_never_take_is_dropped_and_counted(collector: FakeCollector) -> None:
    collector.statuses = [400]
    way = to(collector.endpoint)
    tell(way, 0)
    collector.until(lambda: not collector.statuses)
    tell(way, 1)
    way.close()
    assert numbers(collector) == [1]
    assert lost(way) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(collector: FakeCollector, status: int) -> None:
    with collecting() as elsewhere:
        collector.statuses, collector.redirects_to = [status] * 2, elsewhere.endpoint + "/v1/traces"
        way = to(collector.endpoint)
        tell(way, 0)
        collector.until(lambda: len(collector.statuses) < 2)
        way.close()
        assert elsewhere.bodies == []
    assert lost(way) == 1


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "ROOM", 50)
    monkeypatch.setattr(courier, "BATCH", 20)


@pytest.mark.usefixtures("narrow")
def test_nobody_there_costs_no_error_and_every_span_is_counted() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        way = to(f"http://127.0.0.1:{closed.getsockname()[1]}")
        for number in range(80):
            tell(way, number)
        assert in_time(lambda: lost(way) >= 80 - 50 - 20)
        way.close()
    assert lost(way) == 80


@pytest.mark.usefixtures("narrow")
def test_a_collector_that_comes_back_gets_the_newest(collector: FakeCollector) -> None:
    collector.statuses = [503] * 10_000
    way = to(collector.endpoint)
    for number in range(80):
        tell(way, number)
    collector.statuses.clear()
    collector.until(lambda: 79 in numbers(collector))
    way.close()
    assert numbers(collector)[-50:] == list(range(30, 80))
    assert len(numbers(collector)) + lost(way) == 80


@pytest.mark.usefixtures("narrow")
def test_what_left_the_queue_and_is_still_being_encoded_is_not_lost(collector: FakeCollector) -> None:
    """Seventy were told; twenty of them are in the SDK's hands, and fifty have room."""
    way = courier.Courier(Collector(endpoint=collector.endpoint), "/v1/traces")
    for _ in range(70):
        way.told()
    assert way.bring(b"", 20)
    assert way.lost == 0
    way.told()
    assert way.bring(b"", 20)
    way.close()
    assert way.lost == 31


def test_one_that_never_answers_keeps_no_process_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        way = to(f"http://127.0.0.1:{silent.getsockname()[1]}")
        for number in range(3):
            tell(way, number)
        way.close()
    assert lost(way) == 3


def test_a_process_that_was_forked_off_does_not_speak_over_its_parent_s_connection(
    collector: FakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = courier.Courier(Collector(endpoint=collector.endpoint), "/v1/metrics")
    assert way.offer(b"")
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert not way.offer(b"")
    assert collector.asked == 1
    way.close()


def test_what_other_libraries_tell_does_not_come_here(collector: FakeCollector) -> None:
    """No provider of ours is the process's own, and nothing that is current there stands above our spans."""
    foreign = trace.get_tracer("of somebody else")
    context = trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
    way = to(collector.endpoint)
    with trace.use_span(trace.NonRecordingSpan(context)), foreign.start_as_current_span("of somebody else"):
        tell(way, 0)
    way.close()
    (came,) = collector.spans()
    assert came.name == "queue"
    assert int(came.trace, 16) != 1


def test_what_an_exception_says_is_no_event_of_a_span(collector: FakeCollector) -> None:
    """The SDK would write its text and its traceback there, if somebody let it (R7)."""
    way = to(collector.endpoint)
    own = way.sampled()
    assert own is not None
    span = own.begin(Span.READ)
    span.record_exception(ValueError("kanaarilind"))
    own.end(span)
    way.close()
    assert [one.name for one in collector.spans()] == ["read"]
    assert b"kanaarilind" not in collector.everything()


def test_a_certificate_of_an_unknown_authority_is_not_trusted(tmp_path: Path) -> None:
    collector = Collector(endpoint="https://127.0.0.1:4318", certificate_authority=tmp_path / "none.pem")
    country = EE.model_copy(update={"telemetry": Telling(collector=collector)})
    with pytest.raises(OSError):  # noqa: PT011 - the point is that it is no silent fallback to the system's authorities
        Telemetry.open(country, "domicile-gateway", "ee-test")
