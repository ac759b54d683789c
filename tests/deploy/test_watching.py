"""Dashboards, rules and the collector's configuration: their own tools take them, and they speak of what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from ipaddress import ip_address
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

import serving
from serving.records.telemetry import metrics
from serving.records.telemetry.metrics import Kind
from serving.records.telemetry.schema import Schema
from tenants.registry import load_country
from tests.house import SHIPPED
from tests.records.telemetry.figures import exposed, family

DEPLOY = Path(serving.__file__).parent / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
RULES = DEPLOY / "prometheus" / "rules.yml"
EE = load_country(SHIPPED / "ee")

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
_METRIC = re.compile(r"\b(?:domicile|gen_ai)[a-z0-9_]*")
_SELECTOR = re.compile(r"([a-z_0-9:]+)\{([^{}]*)\}")
_GROUPING = re.compile(r"\b(?:by|without) \(([^()]*)\)")
_NAMES = re.compile(r"[a-z_]+(?=\s*(?:[=!~,]|$))")
_RECORDED = re.compile(r"\bdomicile:[a-z0-9_:]+")
_VARIABLES = {"$__rate_interval": "5m", "$__range": "1h", "$country": "ee"}


def tool(*words: str, cwd: Path) -> None:
    done = subprocess.run(
        [shutil.which("promtool") or "", *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def panels(dashboard: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    return found


def asked_of(dashboard: Path) -> list[str]:
    return [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def series() -> dict[str, set[str]]:
    """Every name that a gateway's page has, and the labels of its series."""
    own = {"domicile_country", "domicile_site"}
    found: dict[str, set[str]] = {}
    for metric in metrics.ALL:
        labels = own | set(map(exposed, metric.labels))
        if metric.kind is Kind.HISTOGRAM:
            found |= {f"{family(metric)}_{end}": labels | {"le"} for end in ("bucket", "sum", "count")}
        else:
            found[family(metric)] = labels
    return found


EXPRESSIONS = [expr for dashboard in DASHBOARDS for expr in asked_of(dashboard)] + [rule["expr"] for rule in rules()]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_only_what_we_export_is_asked_for(expression: str) -> None:
    known = {**series(), "up": {"job"}}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert set(_RECORDED.findall(expression)) <= recorded
    bare = re.sub(r'"[^"]*"', "", _RECORDED.sub("", expression))
    for name, selected in _SELECTOR.findall(bare):
        assert set(_NAMES.findall(selected)) <= known[name] | {"country"}, name
    named = set(_METRIC.findall(_GROUPING.sub("", re.sub(r"\{[^{}]*\}", "", bare))))
    assert named <= known.keys()
    grouped = {label for part in _GROUPING.findall(bare) for label in _NAMES.findall(part)}
    assert grouped <= {"country"}.union(*(known[name] for name in named))


@promtool
def test_prometheus_own_tool_takes_the_configuration_the_rules_and_their_tests() -> None:
    folder = DEPLOY / "prometheus"
    tool("check", "config", "prometheus.yml", cwd=folder)
    tool("check", "rules", "rules.yml", cwd=folder)
    tool("test", "rules", "rules.test.yml", cwd=folder)


@promtool
def test_prometheus_own_tool_takes_what_the_dashboards_ask(tmp_path: Path) -> None:
    asked = [expr for dashboard in DASHBOARDS for expr in asked_of(dashboard)]
    for name, value in _VARIABLES.items():
        asked = [expr.replace(name, value) for expr in asked]
    made = [{"record": f"asked:{number}", "expr": expr} for number, expr in enumerate(asked)]
    (tmp_path / "asked.yml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": made}]}))
    tool("check", "rules", "--lint=none", "asked.yml", cwd=tmp_path)


def test_an_alert_says_what_and_to_whom() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {alert["labels"]["severity"] for alert in alerts} == {"page", "ticket"}
    assert all("country }}" in alert["annotations"]["summary"] for alert in alerts)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_read(dashboard: Path) -> None:
    """What Grafana needs to load it, nothing on top of anything else, every panel explained."""
    loaded = json.loads(dashboard.read_text())
    assert loaded["uid"] == dashboard.stem
    assert {variable["name"] for variable in loaded["templating"]["list"]} == {"datasource", "country"}
    assert len({panel["id"] for panel in loaded["panels"]}) == len(loaded["panels"])
    for panel in loaded["panels"]:
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert all("$country" in target["expr"] for target in panel["targets"])
    for one, other in combinations((panel["gridPos"] for panel in loaded["panels"]), 2):
        assert not _overlap(one, other)


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    across = one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
    return across and one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"]


def test_there_is_a_dashboard_for_each_thing_that_is_watched() -> None:
    told = {path.stem.removeprefix("domicile-") for path in DASHBOARDS}
    assert told == {"country", "slo", "fairness", "residency"}


def test_prometheus_reads_the_ports_that_the_country_has() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert not config.keys() & {"remote_write", "remote_read", "alerting"}
    (scrape,) = config["scrape_configs"]
    (static,) = scrape["static_configs"]
    assert static["targets"][0] == f"127.0.0.1:{EE.metrics_port}"
    assert static["labels"] == {"country": "ee"}


class TestCollector:
    config = yaml.safe_load((DEPLOY / "otel-collector" / "config.yaml").read_text())

    def test_its_pipelines_are_made_of_what_is_described_and_all_of_that_is_used(self) -> None:
        pipelines = self.config["service"]["pipelines"]
        assert pipelines.keys() == {"traces", "logs", "metrics"}
        for part in ("receivers", "processors", "exporters"):
            used = {name for pipeline in pipelines.values() for name in pipeline[part]}
            assert used == self.config[part].keys()
        for pipeline in pipelines.values():
            assert pipeline["processors"] == ["memory_limiter", "redaction", "batch"]

    def test_it_lets_through_what_the_schema_describes_and_no_more(self) -> None:
        redaction = self.config["processors"]["redaction"]
        assert redaction["allow_all_keys"] is False
        assert set(redaction["allowed_keys"]) == Schema(EE).attributes.keys()

    def test_it_speaks_to_addresses_of_its_own_ground(self) -> None:
        endpoints = [one["endpoint"] for one in self.config["exporters"].values()]
        endpoints += [self.config["receivers"]["otlp"]["protocols"]["http"]["endpoint"]]
        for endpoint in endpoints:
            host = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").hostname
            assert ip_address(host or "").is_loopback

    def test_it_tells_nobody_of_itself(self) -> None:
        assert self.config["service"]["telemetry"]["metrics"]["level"] == "none"
