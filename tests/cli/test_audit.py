"""``domicile audit`` and ``domicile receipt``, on records that a country left behind."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.cli import app
from serving.records.audit import AuditLog
from serving.records.ground import RecordsGround
from serving.records.jws import seal
from serving.records.receipts import TYPE
from tests.records.logs import answered, refusal


class Terminal:
    """Somebody at a prompt, in a home where Estonia has served."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.ground = RecordsGround(self.home / "countries" / "ee", "ee")
        self.jwks, self.receipt = folder / "jwks.json", folder / "receipt"
        self.stdout = self.stderr = ""

    def serve(self, requests: int) -> None:
        recorder = self.ground.recorder()
        served = [answered(number) for number in range(requests)]
        for each in served:
            recorder.note(each)
        recorder.note(refusal(requests))
        assert recorder.close(10)
        self.jwks.write_text(json.dumps(self.ground.keys().public().document()))
        with self.ground.receipts() as receipts:
            self.receipt.write_text(receipts.get(served[-1].receipt, "acme").token)

    def run(self, *arguments: str | Path, stdin: str | None = None) -> int:
        environment = {"DOMICILE_HOME": str(self.home), "COLUMNS": "200"}
        result = CliRunner().invoke(app, [str(each) for each in arguments], env=environment, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        self.stdout, self.stderr = result.stdout, result.stderr
        return result.exit_code

    def segment(self) -> Path:
        return next(self.ground.audit_directory.glob("audit-*.jsonl"))


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    terminal = Terminal(tmp_path)
    terminal.serve(5)
    return terminal


def test_a_true_log_verifies(terminal: Terminal) -> None:
    assert terminal.run("audit", "verify", "ee") == 0
    assert "ee: records 1 to 7 in 1 segments, 1 signed checkpoints" in terminal.stdout
    assert "the log is what was written" in terminal.stdout
    assert terminal.run("audit", "verify", "ee", "--json") == 0
    document = json.loads(terminal.stdout)
    assert (document["ok"], document["records"], document["faults"]) == (True, 7, [])


def test_a_falsified_one_does_not_and_says_where(terminal: Terminal) -> None:
    segment = terminal.segment()
    segment.write_bytes(segment.read_bytes().replace(b"req_2", b"req_9"))
    assert terminal.run("audit", "verify", "ee") == 1
    assert f"{segment.name}:3, record 3: altered" in terminal.stdout
    assert "the log is not what was written" in terminal.stdout
    assert terminal.run("audit", "verify", "ee", "--json") == 1
    (fault,) = json.loads(terminal.stdout)["faults"]
    assert (fault["flaw"], fault["segment"], fault["line"], fault["record"]) == ("altered", segment.name, 3, 3)


def test_a_receipt_is_a_witness_of_the_log(terminal: Terminal) -> None:
    assert terminal.run("audit", "verify", "ee", "--against", terminal.receipt) == 0
    other = Terminal(terminal.home.parent / "other")
    other.serve(1)
    assert terminal.run("audit", "verify", "ee", "--against", other.receipt) == 1
    assert "no receipt of these keys" in terminal.stderr


def test_a_receipt_that_outlived_its_record_is_said_to_have_told_nothing(terminal: Terminal) -> None:
    later = int(time.time() * 1000) + 5 * 86_400_000
    log = AuditLog(terminal.ground.audit_directory, "ee", terminal.ground.keys(), clock=lambda: later)
    log.append([refusal()])
    assert log.retain(2) == 1
    assert terminal.run("audit", "verify", "ee", "--against", terminal.receipt) == 0
    assert "was not held against the log" in terminal.stderr


def test_an_export_verifies_elsewhere(terminal: Terminal, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert terminal.run("audit", "export", "ee", copy) == 0
    assert {path.name for path in copy.iterdir()} == {"audit-000000000001.jsonl", "proof.json"}
    stranger = Terminal(tmp_path / "stranger")
    assert stranger.run("audit", "verify", "ee", "--at", copy, "--jwks", terminal.jwks) == 0
    assert not stranger.home.exists()
    assert stranger.run("audit", "verify", "kr", "--at", copy, "--jwks", terminal.jwks) == 1
    assert "of another country" in stranger.stdout
    assert terminal.run("audit", "verify", "ee", "--at", copy) == 2
    assert "--jwks" in terminal.stderr
    assert terminal.run("audit", "export", "ee", copy) == 1


def test_the_newest_records_for_people_and_for_scripts(terminal: Terminal) -> None:
    assert terminal.run("audit", "show", "ee", "--last", "2") == 0
    assert "checkpoint" in terminal.stdout
    assert "request=req_5  rule=r3" in terminal.stdout
    assert "req_4" not in terminal.stdout
    assert terminal.run("audit", "show", "ee", "--last", "3", "--json") == 0
    records = json.loads(terminal.stdout)["records"]
    assert [(record["seq"], record["kind"]) for record in records] == [
        (5, "request"),
        (6, "refusal"),
        (7, "checkpoint"),
    ]
    with terminal.segment().open("ab") as file:
        file.write(b"nonsense\n")
    assert terminal.run("audit", "show", "ee", "--last", "3", "--json") == 0
    assert len(json.loads(terminal.stdout)["records"]) == 2
    assert "1 lines are no records" in terminal.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("audit", "verify", "kr"), 1, "has no audit log yet"),
        (("audit", "export", "kr", "copy"), 1, "has no audit log yet"),
        (("audit", "show", "kr"), 1, "has no audit log yet"),
        (("audit", "verify", "EE"), 1, "did you mean 'ee'?"),
        (("audit", "verify", "../ee"), 1, "no country '../ee'"),
        (("audit", "show", "ee", "--last", "0"), 2, "--last"),
        (("audit", "verify", "ee", "--jwks", "/none"), 2, "--jwks"),
        (("audit", "verify", "ee", "--jwks", "/proc/version"), 1, "error"),
        (("receipt", "verify", "/none", "--jwks", "/proc/version"), 2, "No such file"),
        (("receipt", "verify", "/proc/version"), 2, "--jwks"),
    ],
)
def test_what_cannot_be_done_is_said_on_stderr(
    terminal: Terminal, arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert terminal.run(*arguments) == code
    assert message in terminal.stderr
    assert terminal.stdout == ""
    assert not (terminal.home / "countries" / "kr").exists()


def test_a_loose_key_is_an_error_and_no_traceback(terminal: Terminal) -> None:
    (terminal.home / "countries" / "ee" / "signing" / "current.pem").chmod(0o644)
    assert terminal.run("audit", "verify", "ee") == 1
    assert "chmod 600" in terminal.stderr


def test_a_receipt_is_checked_offline_and_every_check_is_named(terminal: Terminal, tmp_path: Path) -> None:
    stranger = Terminal(tmp_path / "stranger")
    assert stranger.run("receipt", "verify", terminal.receipt, "--jwks", terminal.jwks) == 0
    for said in (
        "form",
        "algorithm",
        "type",
        "header",
        "key",
        "signature",
        "content",
        "time",
        "req_4",
        "ee",
        "8 cached",
    ):
        assert said in stranger.stdout
    assert "FAIL" not in stranger.stdout
    text = terminal.receipt.read_text()
    assert stranger.run("receipt", "verify", "-", "--jwks", terminal.jwks, "--json", stdin=text + "\n") == 0
    document = json.loads(stranger.stdout)
    assert {check["passed"] for check in document["checks"]} == {True}
    assert document["receipt"]["country"] == "ee"
    assert document["receipt"]["usage"] == {"prompt_tokens": 12, "completion_tokens": 34, "cached_tokens": 8}
    assert document["receipt"]["audit"]["seq"] == 5


def test_a_forged_receipt_says_which_check_failed(terminal: Terminal) -> None:
    head, payload, signature = terminal.receipt.read_text().split(".")
    other = "B" if payload[20] == "A" else "A"
    forged = f"{head}.{payload[:20]}{other}{payload[21:]}.{signature}"
    assert terminal.run("receipt", "verify", "-", "--jwks", terminal.jwks, stdin=forged) == 1
    assert "this proves nothing" in terminal.stdout
    rows = {line.split()[1]: line.split()[0] for line in terminal.stdout.splitlines()[1:9]}
    assert [rows[check] for check in ("key", "signature", "content", "time")] == ["ok", "FAIL", "-", "-"]
    assert "req_4" not in terminal.stdout
    assert terminal.run("receipt", "verify", "-", "--jwks", terminal.jwks, "--json", stdin=forged) == 1
    document = json.loads(terminal.stdout)
    assert (document["ok"], document["receipt"]) == (False, None)
    assert [check["passed"] for check in document["checks"]] == [True] * 5 + [False, None, None]


def test_a_receipt_without_its_content_is_none(terminal: Terminal) -> None:
    token = seal(terminal.ground.keys().current(), TYPE, {"id": "rcpt_1"})
    assert terminal.run("receipt", "verify", "-", "--jwks", terminal.jwks, stdin=token) == 1
    assert terminal.run("receipt", "verify", "-", "--jwks", terminal.jwks, stdin="\xff\x00" * 10**5) == 1
    assert terminal.run("receipt", "verify", "-", "--jwks", terminal.jwks, stdin="") == 1
