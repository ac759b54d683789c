from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

import serving.cli
from serving.cli.cluster import ClusterError, Record
from serving.cli.demo import demo_key
from serving.settings import Settings
from tenants.registry import find_country
from tests.tenants.test_country import MINIMAL

# The package's attribute of this name is the command.
status = importlib.import_module("serving.cli.status")
app = typer.Typer()
app.command()(status.status)

ADDRESS = "127.0.0.1:6379"


@dataclass
class Cluster:
    """A local cluster that is what the test says."""

    applied: dict[str, str] | None = None
    nodes: dict[str, int] = field(default_factory=dict)

    def enter(self) -> None: ...

    def record(self) -> Record | None:
        return None if self.applied is None else Record(ADDRESS, self.applied)

    def raylets(self) -> dict[str, int]:
        return self.nodes

    def processes(self) -> list[object]:
        return []


class Serve:
    """Ray Serve as ``serving.cli.serve`` shows it."""

    def __init__(self) -> None:
        self.phases = {"ee": "running", "kr": "running"}
        self.answers = True
        self.asked: list[str] = []

    @contextmanager
    def joined(self, record: Record) -> Iterator[None]:
        if not self.answers:
            raise ClusterError(f"no cluster answers at {record.address}")
        yield

    def states(self, codes: list[str]) -> dict[str, Any]:
        self.asked += codes
        deployments = {"gateway": {"RUNNING": 1}, "small": {"STARTING": 1, "RUNNING": 2}}
        return {
            code: SimpleNamespace(
                phase=self.phases.get(code, "absent"),
                deployments=deployments if code in self.phases else {},
                message="",
            )
            for code in codes
        }

    def fingerprint(self, country: Any) -> str:
        return f"digest of {country.code}"


@dataclass
class Terminal:
    root: Path
    cluster: Cluster
    serve: Serve
    answering: set[str]

    def country(self, code: str, **changes: object) -> None:
        folder = self.root / "countries" / code
        folder.mkdir(parents=True, exist_ok=True)
        numeric = sum(code.encode())
        description = yaml.safe_dump({**MINIMAL, "code": code, "numeric": numeric, **changes})
        (folder / "tenant.yaml").write_text(description, encoding="utf-8")

    @property
    def env(self) -> dict[str, str]:
        return {
            "DOMICILE_HOME": str(self.root / "home"),
            "DOMICILE_COUNTRIES": str(self.root / "countries"),
            "COLUMNS": "200",
        }

    def run(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, list(arguments), env=self.env)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def json(self, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        result = self.run("--json", *arguments)
        return result.exit_code, {each["country"]: each for each in json.loads(result.stdout)["countries"]}


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal(tmp_path, Cluster(), Serve(), set())
    monkeypatch.setattr(status, "LocalCluster", lambda _: terminal.cluster)
    monkeypatch.setattr(status, "ready", lambda country: country.code in terminal.answering)
    monkeypatch.setattr(status, "stopped", lambda country: "")
    monkeypatch.setattr(status, "family_memory", lambda pid: pid * 1024**2)
    monkeypatch.setitem(sys.modules, "serving.cli.serve", terminal.serve)
    monkeypatch.setattr(serving.cli, "serve", terminal.serve, raising=False)
    for code in ("ee", "kr"):
        terminal.country(code)
    return terminal


@pytest.fixture
def up(terminal: Terminal) -> Terminal:
    """Both countries run and are ready."""
    terminal.cluster.applied = {code: f"digest of {code}" for code in ("ee", "kr")}
    terminal.cluster.nodes = {"": 1, "ee": 100, "kr": 200}
    terminal.answering |= {"ee", "kr"}
    return terminal


def test_nothing_is_up(terminal: Terminal) -> None:
    result = terminal.run()
    assert result.exit_code == 1
    assert "nothing is up; start with: domicile up" in result.stderr
    assert terminal.json() == (1, {})
    assert not (terminal.root / "home").exists()


def test_what_a_crash_left_is_named(terminal: Terminal) -> None:
    terminal.cluster.applied, terminal.cluster.nodes = {"ee": ""}, {"ee": 100}
    assert "processes of a crash are left" in terminal.run().stderr
    assert terminal.serve.asked == []


def test_ray_is_left_alone_while_nothing_is_up(terminal: Terminal) -> None:
    terminal.answering.add("ee")
    code, countries = terminal.json("--country", "ee")
    assert code == 1
    assert countries["ee"]["phase"] == "absent"
    assert countries["ee"]["ready"] is False, "a stranger answers there"
    assert terminal.serve.asked == []


def test_all_that_are_up_and_ready(up: Terminal) -> None:
    code, countries = up.json()
    assert code == 0
    assert sorted(countries) == ["ee", "kr"]
    assert countries["kr"] == {
        "country": "kr",
        "address": f"http://127.0.0.1:{9000 + sum(b'kr')}",
        "phase": "running",
        "ready": True,
        "replicas": {"gateway": {"RUNNING": 1}, "small": {"STARTING": 1, "RUNNING": 2}},
        "processes": {},
        "memory_mib": 200,
        "organisations": 0,
        "live_keys": 0,
        "drift": False,
        "message": "",
        "raylets": [200],
        "store": str(up.root / "home" / "countries" / "kr" / "tenants.sqlite"),
    }


def test_people_get_tables(up: Terminal) -> None:
    result = up.run()
    assert result.exit_code == 0
    assert "2 running, 1 starting" in result.stdout
    assert "http://127.0.0.1:" in result.stdout
    assert result.stderr == ""


def test_one_that_is_not_ready_is_a_failed_check(up: Terminal) -> None:
    up.answering.remove("kr")
    assert up.run().exit_code == 1
    assert up.run("--country", "ee").exit_code == 0
    assert up.run("-c", "ee", "-c", "kr").exit_code == 1


def test_why_a_country_has_stopped_is_told(up: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "stopped", lambda country: f"node 1 labelled {country.code}")
    up.answering.remove("ee")
    _, countries = up.json()
    assert [countries[code]["message"] for code in ("ee", "kr")] == ["node 1 labelled ee", ""]
    assert "ee: node 1 labelled ee" in up.run().stderr


def test_a_node_without_an_application_is_starting(up: Terminal) -> None:
    up.serve.phases = {}
    up.cluster.applied = {}
    code, countries = up.json()
    assert code == 1
    assert {each["phase"] for each in countries.values()} == {"starting"}
    assert {each["drift"] for each in countries.values()} == {False}


def test_a_changed_file_is_drift(up: Terminal) -> None:
    up.cluster.applied = {"ee": "older", "kr": "digest of kr"}
    assert [each["drift"] for each in up.json()[1].values()] == [True, False]
    assert "ee: its tenant.yaml has changed" in up.run().stderr


def test_a_silent_ray_does_not_hide_the_rest(up: Terminal) -> None:
    up.serve.answers = False
    code, countries = up.json()
    assert code == 0
    assert countries["ee"]["phase"] == "unknown"
    assert ADDRESS in countries["ee"]["message"]


def test_a_broken_file_does_not_hide_the_others(up: Terminal) -> None:
    up.country("ee", languages=[])
    result = up.run()
    assert result.exit_code == 1
    assert "kr" in result.stdout
    assert "languages" in result.stderr


def test_an_unknown_country_is_a_usage_error(up: Terminal) -> None:
    result = up.run("--country", "xx")
    assert result.exit_code == 2
    assert "no country 'xx'" in result.stderr


def test_organisations_and_live_keys_are_counted(up: Terminal) -> None:
    settings = Settings.from_environment(up.env)
    country = find_country(settings.countries, "ee")
    demo_key(country, settings, datetime.now(UTC))
    _, countries = up.json()
    assert (countries["ee"]["organisations"], countries["ee"]["live_keys"]) == (1, 1)
    assert (countries["kr"]["organisations"], countries["kr"]["live_keys"]) == (0, 0)
