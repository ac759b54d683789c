"""What an operator does is in the country's audit log, under their name, or is not done."""

from __future__ import annotations

import json
import os
import pwd
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serving.cli import app
from serving.cli.deployments import deploying, taking_down
from serving.cli.recorded import actor, latest_policy
from serving.records.audit import AuditLog
from serving.records.errors import RecordsUnavailable
from serving.records.ground import RecordsGround
from serving.records.receipts import verify
from serving.records.tail import tail
from serving.settings import Settings
from tenants.country import Country
from tenants.registry import load_country
from tests.house import SHIPPED
from tests.records.logs import answered

ME = pwd.getpwuid(os.getuid()).pw_name


class Terminal:
    """Somebody at a prompt, in an empty home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ground = RecordsGround(home / "countries" / "ee", "ee")
        self.stderr = ""

    def run(self, *arguments: str | Path) -> int:
        environment = {"DOMICILE_HOME": str(self.home), "COLUMNS": "200"}
        result = CliRunner().invoke(app, [str(each) for each in arguments], env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        self.stdout, self.stderr = result.stdout, result.stderr
        return result.exit_code

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        assert self.run(*arguments, "--json") == 0, self.stderr
        found: dict[str, Any] = json.loads(self.stdout)
        return found

    def log(self) -> list[dict[str, Any]]:
        """Kind and fields of every record."""
        records = map(json.loads, tail(self.ground.audit_directory, 1000))
        return [{"kind": each["kind"], **each["fields"]} for each in records]


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("DOMICILE_HOME", str(tmp_path))
    return Terminal(tmp_path)


def test_organisations_and_keys(terminal: Terminal) -> None:
    terminal.json("org", "create", "ee", "acme", "--plan", "batch")
    key = terminal.json("key", "create", "ee", "--org", "acme")
    new = terminal.json("key", "rotate", "ee", key["id"])
    terminal.json("key", "revoke", "ee", key["id"])
    assert terminal.log() == [
        {
            "kind": "admin",
            "action": "organisation_created",
            "organisation": "acme",
            "subject": "batch",
            "actor": ME,
        },
        {"kind": "key", "action": "created", "key": key["id"], "organisation": "acme", "actor": ME},
        {"kind": "key", "action": "rotated", "key": key["id"], "organisation": "acme", "actor": ME},
        {"kind": "key", "action": "created", "key": new["id"], "organisation": "acme", "actor": ME},
        {"kind": "key", "action": "revoked", "key": key["id"], "organisation": "acme", "actor": ME},
    ]
    assert terminal.run("audit", "verify", "ee") == 0
    assert key["key"] not in str(terminal.log())


def test_what_then_fails_is_told_as_failed(terminal: Terminal) -> None:
    for _ in range(2):
        terminal.run("org", "create", "ee", "acme")
    assert [each.get("outcome") for each in terminal.log()] == [None, None, "failed"]


@pytest.mark.parametrize(
    "words",
    [
        ("key", "create", "ee", "--org", "nobody"),
        ("key", "revoke", "ee", "nothing"),
        ("key", "revoke", "ee", "a b\n"),
        ("key", "rotate", "ee", "nothing"),
        ("org", "create", "ee", "No Name"),
    ],
)
def test_what_cannot_be_done_at_all_is_no_record(terminal: Terminal, words: tuple[str, ...]) -> None:
    terminal.json("org", "create", "ee", "acme")
    assert terminal.run(*words) in (1, 2)
    assert len(terminal.log()) == 1


def test_what_cannot_be_recorded_is_not_done(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.json("org", "create", "ee", "acme")
    key = terminal.json("key", "create", "ee", "--org", "acme")

    def full(*_: object) -> None:
        raise RecordsUnavailable("the disk is full")

    monkeypatch.setattr(AuditLog, "append", full)
    for words in (
        ("key", "revoke", "ee", key["id"]),
        ("key", "create", "ee", "--org", "acme"),
        ("org", "create", "ee", "umbra"),
        ("audit", "rotate-key", "ee"),
        ("audit", "retain", "ee", "--days", "1"),
    ):
        assert terminal.run(*words) == 1
        assert "the disk is full" in terminal.stderr
    assert [each["state"] for each in terminal.json("key", "list", "ee")["keys"]] == ["active"]
    assert len(terminal.json("org", "list", "ee")["organisations"]) == 1


def test_the_actor_is_who_the_machine_says_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "somebody-else")
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert actor() == ME


def test_one_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless(_: int) -> object:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nameless)
    assert actor() == f"uid-{os.getuid()}"


def test_a_new_signing_key_takes_over_and_the_log_goes_on(terminal: Terminal, tmp_path: Path) -> None:
    terminal.json("org", "create", "ee", "acme")
    old = terminal.ground.keys().current().kid
    new = terminal.json("audit", "rotate-key", "ee")["kid"]
    assert old != new == terminal.ground.keys().current().kid
    assert [(each["action"], each["key"]) for each in terminal.log()[1:]] == [
        ("retired", f"signing:{old}"),
        ("created", f"signing:{new}"),
    ]
    assert terminal.run("audit", "verify", "ee") == 0
    assert terminal.run("audit", "rotate-key", "kr") == 1
    assert "has no audit log yet" in terminal.stderr


def test_retention_drops_receipts_and_segments_that_are_older(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = terminal.ground.recorder()
    served = answered()
    recorder.note(served)
    assert recorder.close(10)
    kept = terminal.json("audit", "retain", "ee", "--days", "3")
    assert (kept["segments"], kept["receipts"]) == (0, 0)
    monkeypatch.setattr("time.time", lambda now=time.time: now() + 5 * 86_400)
    monkeypatch.setattr("time.time_ns", lambda now=time.time_ns: now() + 5 * 86_400 * 10**9)
    gone = terminal.json("audit", "retain", "ee", "--days", "3")
    assert (gone["segments"], gone["receipts"]) == (1, 1)
    assert terminal.run("audit", "verify", "ee") == 0
    assert terminal.run("audit", "retain", "ee", "--days", "0") == 2


def country() -> Country:
    return load_country(SHIPPED / "ee")


def test_a_deployment_tells_the_policy_where_it_is_another_and_the_scale(terminal: Terminal) -> None:
    first, model = country(), country().models[0].id
    with deploying([first], {"ee": {}}, restart=False):
        pass
    with deploying([first], {"ee": {model: {"RUNNING": 1}}}, restart=True):
        pass
    changed = first.model_copy(update={"slo": first.slo.model_copy(update={"request_s": 1.0})})
    with deploying([changed], {"ee": {model: {"RUNNING": 1}}}, restart=False):
        pass
    applied = {"kind": "policy", "action": "applied", "actor": ME}
    assert terminal.log() == [
        {"kind": "placement", "action": "up", "actor": ME},
        {**applied, "policy_digest": first.policy_digest},
        {"kind": "scaling", "model": model, "wanted": 1, "running": 0, "actor": ME},
        {"kind": "placement", "action": "restart", "actor": ME},
        {"kind": "placement", "action": "up", "actor": ME},
        {**applied, "policy_digest": changed.policy_digest, "former_digest": first.policy_digest},
    ]
    assert latest_policy(first) == changed.policy_digest


def test_down_is_told_and_never_held_up(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(home=terminal.home, countries=SHIPPED)
    taking_down(["ee", "xx"], settings)
    assert terminal.log() == [{"kind": "placement", "action": "down", "actor": ME}]

    def full(*_: object) -> None:
        raise RecordsUnavailable("the disk is full")

    monkeypatch.setattr(AuditLog, "append", full)
    taking_down(["ee"], settings)
    assert "this is not in the audit log: the disk is full" in capsys.readouterr().err


def test_a_receipt_as_it_was_fetched_is_verified_as_it_is(terminal: Terminal, tmp_path: Path) -> None:
    recorder = terminal.ground.recorder()
    served = answered()
    recorder.note(served)
    assert recorder.close(10)
    (tmp_path / "jwks.json").write_text(json.dumps(terminal.ground.keys().public().document()))
    with terminal.ground.receipts() as store:
        token = store.get(served.receipt, "acme").token
    (tmp_path / "fetched").write_text(json.dumps({"id": served.receipt, "object": "receipt", "receipt": token}))
    assert verify(token, terminal.ground.keys().public(), now=2e9)
    assert terminal.run("receipt", "verify", tmp_path / "fetched", "--jwks", tmp_path / "jwks.json") == 0
    assert terminal.run("audit", "verify", "ee", "--against", tmp_path / "fetched") == 0
    for wrong in ("{}", '{"receipt": 1}', "{", '["receipt"]'):
        (tmp_path / "fetched").write_text(wrong)
        assert terminal.run("receipt", "verify", tmp_path / "fetched", "--jwks", tmp_path / "jwks.json") == 1
