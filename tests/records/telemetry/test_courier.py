"""The way to the collector: what is told arrives, late rather than never, and nowhere else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.records.telemetry import courier, metrics
from serving.records.telemetry.courier import Courier
from serving.records.telemetry.instruments import Instruments
from serving.records.telemetry.otlp import Encoder
from serving.records.telemetry.schema import Schema
from serving.records.telemetry.trace import Ended
from tenants.country import Collector
from tenants.registry import load_country
from tests.house import SHIPPED
from tests.records.telemetry.collector import FakeCollector, collecting, hasty

EE = load_country(SHIPPED / "ee")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    hasty(monkeypatch)


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    with collecting() as found:
        yield found


def to(endpoint: str) -> Courier:
    instruments = Instruments(Schema(EE))
    instruments.add(metrics.RECEIPTS)
    own = {"service.name": "domicile-gateway"}
    return Courier(Collector(endpoint=endpoint), Encoder(own, 1), instruments.readings)


def span(number: int) -> Ended:
    return Ended("ab" * 16, f"{number + 1:016x}", "", "queue", 10, 20, attributes={"domicile.attempt": number})


def numbers(collector: FakeCollector) -> list[object]:
    return [span.said["domicile.attempt"] for span in collector.spans()]


def test_what_is_told_arrives(collector: FakeCollector) -> None:
    way = to(collector.endpoint)
    way.tell(span(0))
    collector.until(lambda: bool(collector.spans()))
    way.close()
    (came,) = collector.spans()
    assert (came.trace, came.id, came.name, came.begun, came.ended) == ("ab" * 16, f"{1:016x}", "queue", 10, 20)
    assert collector.metrics()["domicile.receipts"].sum.is_monotonic
    assert not any(way.dropped().values())


@pytest.mark.parametrize("status", [500, 503, 429])
def test_what_a_collector_cannot_take_now_is_brought_again_in_order(collector: FakeCollector, status: int) -> None:
    collector.statuses = [status, status]
    way = to(collector.endpoint)
    for number in range(3):
        way.tell(span(number))
    collector.until(lambda: len(numbers(collector)) == 3)
    way.close()
    assert numbers(collector) == [0, 1, 2]
    assert way.dropped()["trace"] == 0


def test_what_it_will_never_take_is_dropped_and_counted(collector: FakeCollector) -> None:
    collector.statuses = [400]
    way = to(collector.endpoint)
    way.tell(span(0))
    collector.until(lambda: not collector.statuses)
    way.tell(span(1))
    way.close()
    assert numbers(collector) == [1]
    assert way.dropped()["trace"] == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(collector: FakeCollector, status: int) -> None:
    with collecting() as elsewhere:
        collector.statuses, collector.redirects_to = [status] * 2, elsewhere.endpoint + "/v1/traces"
        way = to(collector.endpoint)
        way.tell(span(0))
        collector.until(lambda: len(collector.statuses) < 2)
        way.close()
        assert elsewhere.bodies == []
    assert way.dropped()["trace"] == 1


def test_nobody_there_costs_bounded_room_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "ROOM", 50)
    monkeypatch.setattr(courier, "BATCH", 20)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        way = to(f"http://127.0.0.1:{closed.getsockname()[1]}")
        for number in range(80):
            way.tell(span(number))
        way.close()
    assert len(way._spans.items) <= 50
    assert len(way._spans.items) + way.dropped()["trace"] == 80


def test_a_collector_that_comes_back_gets_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as gone:
        endpoint = gone.endpoint
    way = to(endpoint)
    way.tell(span(7))
    way.close()
    assert [one.attributes["domicile.attempt"] for one in way._spans.items] == [7]


def test_a_certificate_of_an_unknown_authority_is_not_trusted(tmp_path: Path) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - the point is that it is no silent fallback to the system's authorities
        Courier(
            Collector(endpoint="https://127.0.0.1:4318", certificate_authority=tmp_path / "none.pem"),
            Encoder({}, 1),
            list,
        )
