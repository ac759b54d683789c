"""The Prometheus page, as Prometheus' own parser reads it."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.http.listener import PortTaken
from serving.records.telemetry import listener, metrics
from serving.records.telemetry.metrics import Kind
from serving.records.telemetry.telemetry import Telemetry
from tenants.registry import load_country
from tests.house import SHIPPED
from tests.records.telemetry.figures import exposed, family

EE = load_country(SHIPPED / "ee")
VALUES = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": EE.models[0].id,
    "gen_ai.token.type": "input",
    "error.type": "lost",
    "domicile.service_class": "standard",
    "domicile.outcome": "served",
    "domicile.rule": "r3",
    "domicile.reason": "no_key",
    "domicile.kept": "true",
    "domicile.state": "serving",
    "domicile.signal": "trace",
}
_NAMES = re.compile(r'([a-z_]+)="')
ASKED = ("chat", EE.models[0].id, "standard")


def told() -> str:
    telemetry = Telemetry.open(EE, "domicile-gateway", "ee-test")
    instruments = telemetry.instruments
    instruments.add(metrics.REQUESTS, *ASKED, "served", by=3)
    for seconds in (0.004, 0.05, 0.05, 700.0):
        instruments.observe(metrics.DURATION, seconds, *ASKED, "")
    instruments.read(metrics.ACTIVE, lambda: {(): 2.0})
    instruments.read(metrics.FAIRNESS, dict)
    return telemetry.page().decode()


def test_it_is_read_as_what_was_told() -> None:
    families = {family.name: family for family in text_string_to_metric_families(told())}
    assert families.keys() == {
        "domicile_requests",
        "gen_ai_server_request_duration_seconds",
        "domicile_requests_active",
        "domicile_telemetry_dropped",
    }
    (served,) = families["domicile_requests"].samples
    assert (served.name, served.value) == ("domicile_requests_total", 3)
    assert served.labels == {
        "domicile_country": "ee",
        "domicile_site": "ee-test",
        "gen_ai_operation_name": "chat",
        "gen_ai_request_model": EE.models[0].id,
        "domicile_service_class": "standard",
        "domicile_outcome": "served",
    }


def test_every_metric_has_the_name_that_dashboards_and_rules_ask_for() -> None:
    telemetry = Telemetry.open(EE, "domicile-gateway", "ee-test")
    for metric in metrics.ALL:
        labels = tuple(VALUES[name] for name in metric.labels)
        if metric.kind is Kind.HISTOGRAM:
            telemetry.instruments.observe(metric, 1.0, *labels)
        elif metric is not metrics.DROPPED:
            telemetry.instruments.read(metric, {labels: 1.0}.copy)
    page = telemetry.page().decode()
    for metric in metrics.ALL:
        assert f"# TYPE {family(metric)} {metric.kind.value}\n" in page
        series = family(metric) + ("_sum" if metric.kind is Kind.HISTOGRAM else "")
        names = {"domicile_country", "domicile_site", *map(exposed, metric.labels)}
        found = [line for line in page.splitlines() if line.startswith(series + "{")]
        assert found
        assert all(set(_NAMES.findall(line)) == names for line in found)


def test_buckets_add_up() -> None:
    """A bucket counts what is at its bound or below, the last one everything."""
    families = {family.name: family for family in text_string_to_metric_families(told())}
    samples = families["gen_ai_server_request_duration_seconds"].samples
    buckets = {sample.labels["le"]: sample.value for sample in samples if sample.name.endswith("_bucket")}
    assert (buckets["0.01"], buckets["0.025"], buckets["0.05"], buckets["600.0"], buckets["+Inf"]) == (1, 1, 3, 3, 4)
    assert {sample.value for sample in samples if sample.name.endswith("_count")} == {4}
    assert [sample.value for sample in samples if sample.name.endswith("_sum")] == [pytest.approx(700.104)]
    assert all("error_type" not in sample.labels for sample in samples)


async def test_each_process_of_a_country_finds_a_port_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "METRICS_PORTS", 2)
    first = await listener.private(bytes, "127.0.0.1", 0)
    try:
        second = await listener.private(bytes, "127.0.0.1", first.port)
        try:
            assert second.port == first.port + 1
            with pytest.raises(PortTaken, match="no port for metrics"):
                await listener.private(bytes, "127.0.0.1", first.port)
        finally:
            await second.stop()
    finally:
        await first.stop()
