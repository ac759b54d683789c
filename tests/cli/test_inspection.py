"""``domicile doctor --egress``: what it finds on a machine, and how it tells."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from serving.cli import app, inspection
from serving.cli.checks import Finding, Verdict, egress
from serving.cli.cluster import LocalCluster
from serving.cli.firewall import digest
from serving.cli.peers import Opening, Peer, Talk
from serving.cli.sockets import Socket, own_addresses, owners, sockets, title
from serving.settings import OFFLINE, SILENCE
from tenants.country import Country
from tests.tenants.test_country import MINIMAL

PID = os.getpid()


def country(**residency: object) -> Country:
    return Country.model_validate({**MINIMAL, "residency": residency})


def says(finding: Finding, verdict: Verdict, *words: str) -> None:
    assert finding.verdict is verdict, finding
    for word in words:
        assert word in f"{finding.found}\n{finding.remedy}", finding


def talk(peer: Peer, remote: str = "203.0.113.9:443", other: int | None = None) -> Talk:
    return Talk(PID, "tcp", "127.0.0.1:1", remote, peer, "kr" if peer is Peer.FOREIGN else "", other)


# Checks


def test_company() -> None:
    says(
        egress.company(country(), [talk(peer) for peer in Peer if peer not in (Peer.ABROAD, Peer.FOREIGN)]), Verdict.OK
    )
    says(
        egress.company(country(), [talk(Peer.ABROAD)]), Verdict.FAIL, str(PID), "203.0.113.9:443", "residency.networks"
    )
    says(egress.company(country(), [talk(Peer.FOREIGN, other=PID)]), Verdict.FAIL, "a process of kr", f"({PID})")


def test_doors() -> None:
    says(egress.doors(country(), [Opening(PID, "tcp", "127.0.0.1:1", True)]), Verdict.OK, "1 listeners")
    says(egress.doors(country(), [Opening(PID, "tcp", "[::]:7", False)]), Verdict.WARN, "[::]:7")


@pytest.fixture
def child() -> Iterator[Any]:
    """Starts a process with an environment of its own, and returns its id."""
    started = []

    def start(**environment: str) -> int:
        process = subprocess.Popen(
            [sys.executable, "-uc", "print(); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        started.append(process)
        # A process that is still being started shows no environment yet.
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    yield start
    for process in started:
        process.communicate(b"\n")


def test_environments(child: Any) -> None:
    whole, hub = child(**SILENCE, **OFFLINE), child(**SILENCE)
    says(egress.environments(country(), [whole]), Verdict.OK, "1 processes")
    says(egress.environments(country(), [whole, hub]), Verdict.FAIL, str(hub), "HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE")
    says(egress.environments(country(allow_hub=True), [whole, hub]), Verdict.OK)
    loud = child(**{**SILENCE, **OFFLINE, "DO_NOT_TRACK": "0"})
    says(egress.environments(country(allow_hub=True), [loud]), Verdict.FAIL, "without DO_NOT_TRACK")
    says(egress.environments(country(), [2**22 + 1]), Verdict.WARN, "can be read")
    proxied = child(**SILENCE, **OFFLINE, HTTPS_PROXY="http://user:secret@203.0.113.9")
    finding = egress.environments(country(), [proxied])
    says(finding, Verdict.WARN, "HTTPS_PROXY")
    assert "secret" not in finding.found


def listed(packets: int = 0, comment: str = "") -> str:
    counters = [{"counter": {"name": "abroad", "packets": packets, "comment": comment or digest(country())}}]
    return json.dumps({"nftables": [{"table": {}}, *counters]})


def test_rules_that_are_loaded() -> None:
    says(egress.loaded(country(), listed()), Verdict.OK, "nothing was refused")
    says(egress.loaded(country(), listed(packets=3)), Verdict.FAIL, "3 packets refused: abroad")
    says(egress.loaded(country(), listed(comment="other")), Verdict.FAIL, "not those of the country's file", "ee")
    says(egress.loaded(country(networks=["10.0.0.0/8"]), listed()), Verdict.FAIL, "not those of the country's file")
    says(egress.loaded(country(), '{"nftables": []}'), Verdict.FAIL)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("Error: No such file or directory", "no rules are loaded"),
        ("Operation not permitted (you must be root)", "root only"),
    ],
)
def test_rules_that_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, words: str) -> None:
    nft = tmp_path / "nft"
    nft.write_text(f"#!/bin/sh\necho '{told}' >&2\nexit 1\n")
    nft.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    says(egress.rules(country()), Verdict.WARN, words)
    nft.unlink()
    says(egress.rules(country()), Verdict.WARN, "no nftables")


# What is seen


def test_the_sockets_of_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        local, remote = near.getsockname(), near.getpeername()
        found = [each for each in sockets() if each.pid == PID]
        assert Socket(PID, "tcp", remote, None, True) in found
        assert Socket(PID, "tcp", local, remote, False) in found
    assert "127.0.0.1" in own_addresses()


def test_a_country_s_processes_are_its_raylet_s_family(child: Any) -> None:
    raylet, head = child(), child()
    parent = psutil.Process()
    found = owners({"ee": PID, "": head}, [psutil.Process(head), psutil.Process(raylet), parent])
    assert found[PID] == found[raylet] == "ee"
    assert owners({"ee": raylet, "": head}, [psutil.Process(head)]) == {raylet: "ee", head: ""}
    assert title(PID)
    assert title(None) == "a process of another user"


# The command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This very process and its children are Estonia."""
    folder = tmp_path / "countries" / "ee"
    folder.mkdir(parents=True)
    (folder / "tenant.yaml").write_text(yaml.safe_dump(MINIMAL))
    monkeypatch.setattr(LocalCluster, "raylets", lambda _: {"ee": PID})
    monkeypatch.setattr(LocalCluster, "processes", lambda _: [])
    monkeypatch.setattr(egress, "rules", lambda _: Finding(Verdict.OK, "loaded"))
    monkeypatch.setattr(egress, "environments", lambda *_: Finding(Verdict.OK, "silent"))
    return {"DOMICILE_HOME": str(tmp_path / "home"), "DOMICILE_COUNTRIES": str(tmp_path / "countries")}


def run(home: dict[str, str], *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["doctor", "--egress", *words], env=home)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def test_a_country_that_is_at_home(home: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        port = server.getsockname()[1]
        code, told = run(home, "ee", "--json")
    document = json.loads(told)
    assert (code, document["ok"]) == (0, True)
    assert f"127.0.0.1:{port}" in {one["local"] for one in document["listeners"] if one["at_home"]}
    assert {"own"} <= {one["peer"] for one in document["connections"]}
    assert [check["check"] for check in document["checks"]] == ["peers", "listeners", "silence", "rules"]


def test_a_country_that_talks_abroad(home: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes once and goes is told all the same, where somebody watches."""
    abroad = [Socket(PID, "tcp", ("192.0.2.2", 40000), ("203.0.113.9", 443), False)]
    looks = iter([abroad])
    monkeypatch.setattr(inspection, "sockets", lambda: next(looks, []))
    code, told = run(home, "ee", "--watch", "0.3")
    assert code == 1
    assert told.startswith("peer")
    assert "abroad" in told
    assert "203.0.113.9:443" in told


def test_a_country_that_is_not_here(home: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalCluster, "raylets", lambda _: {})
    code, told = run(home, "ee")
    assert code == 1
    assert "nothing of ee runs here" in told
    assert run(home, "xx")[0] == 2
