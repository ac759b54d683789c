from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

import serving.cli
from serving.cli import converge
from serving.cli.cluster import ClusterError, Record
from serving.cli.recorded import actor
from serving.placement import Node
from serving.records.ground import RecordsGround
from serving.records.record import decode
from serving.records.tail import tail
from serving.settings import Settings
from tenants.country import Country
from tests.tenants.test_country import MINIMAL

# The package's attributes of these names are the commands.
observe = importlib.import_module("serving.cli.observe")
plan = importlib.import_module("serving.cli.plan")
up = importlib.import_module("serving.cli.up")
app = typer.Typer()
app.command("plan")(plan.plan)
app.command("apply")(plan.apply)
app.command("up")(up.up)

ADDRESS = "127.0.0.1:6379"


@dataclass
class Cluster:
    """A local cluster that starts what it is told and forgets nothing."""

    settings: Settings
    written: Record | None = None
    nodes: dict[str, int] = field(default_factory=dict)

    def enter(self) -> None: ...

    def record(self) -> Record | None:
        return self.written

    def raylets(self) -> dict[str, int]:
        return dict(self.nodes)

    def processes(self) -> list[object]:
        return []

    def stop(self) -> int:
        return 0

    def start_head(self) -> str:
        self.nodes[""] = 1
        self.written = Record(ADDRESS, {})
        return ADDRESS

    def start_raylet(self, _address: str, code: str, _cores: Sequence[int]) -> str:
        self.nodes[code] = 100 + len(self.nodes)
        return code

    def finish(self, _starting: object, _what: str) -> None: ...

    def note(self, applied: Mapping[str, str]) -> None:
        assert self.written is not None
        self.written = Record(ADDRESS, {**self.written.applied, **applied})

    def stop_raylets(self, codes: Sequence[str]) -> int:
        assert self.written is not None
        self.written = Record(ADDRESS, {k: v for k, v in self.written.applied.items() if k not in codes})
        for code in codes:
            del self.nodes[code]
        return len(codes)


@dataclass
class Serve:
    """Ray Serve as ``serving.cli.serve`` shows it: what is deployed runs at once."""

    cluster: Cluster
    running: dict[str, Country] = field(default_factory=dict)
    told: list[tuple[str, str]] = field(default_factory=list)
    """Each deployment that was asked for: a country and its generation."""
    failing: bool = False
    draining: int = 0
    """How many looks it still takes until those who were replaced are gone."""
    dead: set[str] = field(default_factory=set)
    """Countries whose processes were killed, as Serve has yet to find out."""

    @contextmanager
    def joined(self, _record: Record) -> Iterator[None]:
        yield

    def nodes(self) -> tuple[Node, ...]:
        return tuple(Node(f"node{number}", code) for code, number in self.cluster.nodes.items())

    def deployed(self) -> list[str]:
        return sorted(self.running)

    def states(self, codes: Sequence[str]) -> dict[str, Any]:
        return {code: self._state(code) for code in codes}

    def deploy(
        self, countries: Sequence[Country], _s: Settings, _a: Mapping[str, str], generations: Mapping[str, str]
    ) -> None:
        for one in countries:
            self.running[one.code] = one
            self.told.append((one.code, generations[one.code]))

    def remove(self, codes: Sequence[str], _within_s: float) -> None:
        for code in codes:
            del self.running[code]

    def titles(self) -> dict[int, str]:
        """The names that the processes go by."""
        names = [(code, name) for code in self.running for name in ("gateway", "small") if code not in self.dead]
        return {pid: f"ray::ServeReplica:domicile-{code}:{name}" for pid, (code, name) in enumerate(names)}

    def _state(self, code: str) -> Any:
        one = self.running.get(code)
        if one is None:
            return SimpleNamespace(phase="absent", running=False, deployments={}, message="")
        counts = {"gateway": one.gateway.replicas, **{model.id: model.replicas for model in one.models}}
        deployments = {name: {"RUNNING": count} for name, count in counts.items()}
        if self.draining:
            self.draining -= 1
            deployments["gateway"]["STOPPING"] = 1
            return SimpleNamespace(phase="starting", running=False, deployments=deployments, message="")
        if self.failing:
            return SimpleNamespace(phase="failed", running=False, deployments={}, message="no memory")
        return SimpleNamespace(phase="running", running=True, deployments=deployments, message="")


@dataclass
class Terminal:
    root: Path
    settings: Settings
    cluster: Cluster
    serve: Serve

    def country(self, code: str, **changes: object) -> None:
        folder = self.settings.countries / code
        folder.mkdir(parents=True, exist_ok=True)
        described = {**MINIMAL, "code": code, "numeric": sum(code.encode()), "models": [MODEL], **changes}
        (folder / "tenant.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")

    def run(self, *arguments: str) -> Result:
        environment = {
            "DOMICILE_HOME": str(self.settings.home),
            "DOMICILE_COUNTRIES": str(self.settings.countries),
            "COLUMNS": "200",
        }
        result = CliRunner().invoke(app, list(arguments), env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def plan(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("plan", "--json", *arguments).stdout)
        return found

    def recorded(self, code: str) -> list[dict[str, object]]:
        directory = RecordsGround(self.settings.country(code), code).audit_directory
        lines = [decode(line) for line in tail(directory, 100)]
        told = [line.fields for line in lines if line is not None and line.kind in ("policy", "placement")]
        return [fields for fields in told if fields["action"] not in ("up", "restart")]

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.root.rglob("*")) if path.is_file()}


MODEL = {"id": "small", "source": {"bundled": "smollm2-135m-instruct"}}


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    settings = Settings(home=tmp_path / "home", countries=tmp_path / "countries")
    cluster = Cluster(settings)
    terminal = Terminal(tmp_path, settings, cluster, Serve(cluster))
    for module in (plan, up):
        monkeypatch.setattr(module, "LocalCluster", lambda _: cluster)
    monkeypatch.setattr(observe, "titles", lambda _: terminal.serve.titles())
    monkeypatch.setattr(converge, "ready", lambda _: True)
    monkeypatch.setattr(converge, "prepared", lambda *_: True)
    monkeypatch.setattr(converge, "_free", lambda _: True)
    monkeypatch.setitem(sys.modules, "serving.cli.serve", terminal.serve)
    monkeypatch.setattr(serving.cli, "serve", terminal.serve, raising=False)
    for code in ("ee", "kr"):
        terminal.country(code)
    return terminal


@pytest.fixture
def running(terminal: Terminal) -> Terminal:
    """Both countries were brought up."""
    assert terminal.run("up", "--json").exit_code == 0
    return terminal


def test_with_nothing_up_there_is_nothing_to_plan_until_somebody_is_named(terminal: Terminal) -> None:
    result = terminal.run("plan")
    assert result.exit_code == 0
    assert "no country runs: name one with --country" in result.stdout
    named = terminal.plan("--country", "ee")
    assert [(one["country"], one["action"]) for one in named["countries"]] == [("ee", "add")]
    assert named["changes"] is True
    assert terminal.run("plan", "-c", "xx").exit_code == 2


def test_up_is_a_plan_made_so_and_the_next_plan_is_empty(running: Terminal) -> None:
    found = running.plan()
    assert found["changes"] is False
    assert [one["drift"] for one in found["countries"]] == [[], []]
    assert found["strays"] == []
    for code in ("ee", "kr"):
        (applied,) = running.recorded(code)
        assert applied["action"] == "applied"
        assert applied["actor"] == actor()
        assert applied["policy_digest"] == running.serve.running[code].policy_digest
    assert "nothing to change" in running.run("plan").stdout


def test_a_plan_changes_nothing(running: Terminal) -> None:
    running.country("ee", slo={"first_token_s": 3.0})
    running.country("kr", audit="off")
    files, told, written = running.files(), list(running.serve.told), running.cluster.written
    assert running.run("plan").exit_code == 1
    assert running.run("plan", "-c", "ee", "--json").exit_code == 0
    assert (running.files(), running.serve.told, running.cluster.written) == (files, told, written)


def test_an_edit_is_shown_applied_and_recorded_once(running: Terminal) -> None:
    running.country("ee", slo={"first_token_s": 3.0})
    shown = running.run("plan").stdout
    assert "slo.first_token_s  2.0 → 3.0" in shown
    assert "streams go on" in shown
    before = running.recorded("ee")[-1]["policy_digest"]
    applied = running.run("apply")
    assert applied.exit_code == 0
    assert running.serve.told[2:] == [("ee", running.serve.told[0][1])], "kr is left alone, and ee's generation goes on"
    last = running.recorded("ee")[-1]
    assert (last["action"], last["former_digest"]) == ("applied", before)
    assert running.plan()["changes"] is False
    again = running.run("apply", "--json")
    assert json.loads(again.stdout)["applied"] is False
    assert len(running.recorded("ee")) == 2
    assert len(running.serve.told) == 3


@pytest.mark.parametrize("command", [["apply", "--yes"], ["up", "-c", "ee"], ["up", "-c", "ee", "--restart"]])
def test_what_plan_refuses_nobody_applies(running: Terminal, command: list[str]) -> None:
    running.country("ee", fallback_strategy="any", enable_log_requests=True)
    told = list(running.serve.told)
    result = running.run(*command)
    assert result.exit_code == 1
    assert "R2" in result.output
    assert "R7" in result.output
    assert running.serve.told == told
    assert [(each["action"], each["rule"]) for each in running.recorded("ee")[1:]] == [
        ("refused", "r2"),
        ("refused", "r7"),
    ]
    assert len(running.recorded("kr")) == 1


def test_one_country_s_mistake_stops_nobody_else(running: Terminal) -> None:
    running.country("ee", languages=[])
    running.country("kr", name="Korea")
    assert running.run("apply", "-c", "kr").exit_code == 0
    assert running.run("apply").exit_code == 1
    assert running.recorded("ee")[-1]["action"] == "refused"
    assert "rule" not in running.recorded("ee")[-1]


def test_a_country_that_never_was_up_gets_no_log_for_being_refused(terminal: Terminal) -> None:
    terminal.country("ee", audit="off")
    assert terminal.run("up", "-c", "ee").exit_code == 1
    assert not terminal.settings.home.exists()


def test_who_runs_is_removed_only_when_that_is_meant(running: Terminal) -> None:
    (running.settings.countries / "kr" / "tenant.yaml").unlink()
    assert "ended, once its streams are finished" in running.run("plan").stdout
    asked = running.run("apply")
    assert asked.exit_code == 2
    assert "--yes" in asked.stderr
    assert "kr" in running.serve.running
    assert running.run("apply", "--yes").exit_code == 0
    assert sorted(running.serve.running) == ["ee"]
    assert "kr" not in running.cluster.nodes
    assert running.recorded("kr")[-1]["action"] == "removed"
    assert running.plan()["changes"] is False


def test_what_cannot_be_recorded_is_not_done(running: Terminal) -> None:
    running.country("ee", name="Estland")
    audit = RecordsGround(running.settings.country("ee"), "ee").audit_directory
    (audit / "head.jws").write_bytes(b"not a head")
    told = list(running.serve.told)
    result = running.run("apply")
    assert result.exit_code == 1
    assert "head" in result.stderr
    assert running.serve.told == told
    assert running.plan()["changes"] is True


def test_what_failed_is_repaired_as_a_new_generation(running: Terminal) -> None:
    running.serve.failing = True
    assert [one["action"] for one in running.plan()["countries"]] == ["repair", "repair"]
    result = running.run("apply", "-c", "ee", "--timeout", "1")
    assert result.exit_code == 1
    assert "no memory" in result.stderr
    running.serve.failing = False
    (first, again) = (generation for code, generation in running.serve.told if code == "ee")
    assert first != again, "Serve leaves a version that failed as it is"
    assert running.plan()["changes"] is False


def test_restart_replaces_what_does_not_differ(running: Terminal) -> None:
    assert running.run("up", "-c", "ee", "--restart").exit_code == 0
    (first, again) = (generation for code, generation in running.serve.told if code == "ee")
    assert first != again
    assert len(running.recorded("ee")) == 1, "the policy is the same"


def test_answers_that_finish_are_waited_for_however_long(running: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "POLL_S", 0.01)
    running.country("ee", name="Estland")
    look = running.serve.states
    asked = 0

    def states(codes: Sequence[str]) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked == 3:  # The third look is the first one after the deployment.
            running.serve.draining = 20
        return look(codes)

    monkeypatch.setattr(running.serve, "states", states)
    applied = running.run("apply", "--timeout", "0")
    assert applied.exit_code == 0, applied.stderr
    assert running.serve.draining == 0
    assert asked > 10, "each look is at both countries"


def test_dead_processes_are_drift_that_heals_by_itself(running: Terminal) -> None:
    running.serve.dead.add("kr")
    (kr,) = running.plan("-c", "kr")["countries"]
    assert (kr["action"], {each["kind"] for each in kr["drift"]}) == ("none", {"processes"})
    assert "0 of 1 processes live" in running.run("plan").stdout


def test_up_starts_the_node_that_is_missing(running: Terminal) -> None:
    del running.cluster.nodes["kr"]
    (kr,) = running.plan("-c", "kr")["countries"]
    assert (kr["action"], [each["kind"] for each in kr["drift"]]) == ("repair", ["node"])
    assert running.run("apply").exit_code == 0
    assert "kr" in running.cluster.nodes


def test_the_address_of_somebody_else_is_not_taken(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converge, "_free", lambda _: False)
    result = terminal.run("up", "-c", "ee")
    assert result.exit_code == 1
    assert "another program listens" in result.stderr
    assert terminal.serve.told == []


def test_a_silent_cluster_is_told_and_not_taken_for_an_empty_one(
    running: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def silent(_: Record) -> Iterator[None]:
        raise ClusterError("no cluster answers")
        yield

    monkeypatch.setattr(running.serve, "joined", silent)
    found = running.plan()
    assert [each["drift"][0]["kind"] for each in found["countries"]] == ["unknown", "unknown"]
    assert found["changes"] is False


@pytest.mark.parametrize("content", [b"", b"[]", b'{"digest": 1}', b"\xff"])
def test_what_was_applied_and_cannot_be_read_is_made_anew(running: Terminal, content: bytes) -> None:
    (running.settings.country("ee") / "applied.json").write_bytes(content)
    ee, kr = running.plan()["countries"]
    assert (ee["action"], [each["kind"] for each in ee["drift"]]) == ("change", ["unknown"])
    assert {step["how"] for step in ee["steps"]} == {"roll"}
    assert kr["action"] == "none"
    assert running.run("apply").exit_code == 0
    assert running.plan()["changes"] is False
