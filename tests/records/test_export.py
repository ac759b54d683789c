from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from serving.records.audit_verify import Snapshot, snapshot, verify
from serving.records.chain import Flaw
from serving.records.errors import RecordsUnavailable
from serving.records.export import export
from serving.records.jwks import PublicKeys
from serving.records.tail import tail
from tests.records.logs import Home, refusal


@pytest.fixture
def copy(home: Home, tmp_path: Path) -> Path:
    log = home.log()
    for number in range(10):
        log.append([refusal(number)] * 4)
    assert export(home.directory, tmp_path / "copy", home.keys.public(), "ee").ok
    return tmp_path / "copy"


def published(copy: Path) -> PublicKeys:
    return PublicKeys.read(json.dumps(json.loads((copy / "proof.json").read_text())["jwks"]).encode())


def test_an_export_verifies_without_the_country(copy: Path, home: Home) -> None:
    lines = home.lines()
    keys = published(copy)
    shutil.rmtree(home.directory.parent / "signing")
    shutil.rmtree(home.directory)
    verdict = verify(copy, keys, "ee")
    assert verdict.ok
    assert b"".join(path.read_bytes() for path in sorted(copy.glob("*.jsonl"))) == b"".join(lines)
    assert len(json.loads((copy / "proof.json").read_text())["checkpoints"]) == len(verdict.checkpoints) > 2


def test_the_log_goes_on_meanwhile(copy: Path, home: Home) -> None:
    home.log().append([refusal()] * 30)
    assert verify(copy, published(copy), "ee").last < home.verdict().last
    assert home.verdict().ok


def test_what_was_added_while_it_was_copied_is_left_out(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = home.log()
    log.append([refusal()])

    def taken(directory: Path) -> Snapshot:
        before = snapshot(directory)
        log.append([refusal()])
        return before

    monkeypatch.setattr("serving.records.export.snapshot", taken)
    assert export(home.directory, tmp_path / "copy", home.keys.public(), "ee").last == 1
    assert verify(tmp_path / "copy", home.keys.public(), "ee").last == 1


def test_checkpoints_hold_the_log_where_the_head_is_withheld(copy: Path) -> None:
    keys, proof = published(copy), json.loads((copy / "proof.json").read_text())
    (copy / "proof.json").write_text(json.dumps({**proof, "head": None}))
    assert [fault.flaw for fault in verify(copy, keys, "ee").faults] == [Flaw.HEAD]
    sorted(copy.glob("*.jsonl"))[-1].unlink()
    assert Flaw.TRUNCATED in {fault.flaw for fault in verify(copy, keys, "ee").faults}


def test_what_is_changed_in_an_export_is_found(copy: Path) -> None:
    keys, segment = published(copy), sorted(copy.glob("*.jsonl"))[1]
    true = segment.read_bytes()
    segment.write_bytes(true.replace(b"r3", b"r4", 1))
    assert verify(copy, keys, "ee").faults[0].flaw is Flaw.ALTERED
    segment.write_bytes(true)
    sorted(copy.glob("*.jsonl"))[-1].unlink()
    assert verify(copy, keys, "ee").faults[-1].flaw is Flaw.TRUNCATED


def test_a_proof_is_checked_against_the_keys_that_its_reader_has(copy: Path, tmp_path: Path) -> None:
    stranger = Home(tmp_path / "other")
    stranger.keys.current()
    flaws = {fault.flaw for fault in verify(copy, stranger.keys.public(), "ee").faults}
    assert flaws == {Flaw.HEAD, Flaw.SIGNATURE}


@pytest.mark.parametrize("proof", ["", "[]", '{"head": 1}', '{"head": "a", "head": "b"}'])
def test_a_proof_that_proves_nothing(copy: Path, home: Home, proof: str) -> None:
    (copy / "proof.json").write_text(proof)
    if proof == '{"head": 1}':
        assert verify(copy, home.keys.public(), "ee").faults[0].flaw is Flaw.HEAD
    else:
        with pytest.raises(RecordsUnavailable, match="cannot read"):
            verify(copy, home.keys.public(), "ee")


def test_nothing_is_written_over_or_left_half_done(copy: Path, home: Home, tmp_path: Path) -> None:
    with pytest.raises(RecordsUnavailable, match="cannot export"):
        export(home.directory, copy, home.keys.public(), "ee")
    assert verify(copy, published(copy), "ee").ok
    home.segments()[0].unlink()
    home.segments()[0].unlink()
    (home.directory / "audit-000000000001.jsonl").mkdir()
    with pytest.raises(RecordsUnavailable, match="cannot export"):
        export(home.directory, tmp_path / "second", home.keys.public(), "ee")
    assert not (tmp_path / "second").exists()


def test_the_newest_lines_across_segments(home: Home) -> None:
    log = home.log()
    for number in range(10):
        log.append([refusal(number)] * 4)
    lines = home.lines()
    for count in (1, 3, 30, 10**6):
        assert tail(home.directory, count) == lines[-count:]
    with home.segments()[-1].open("ab") as file:
        file.write(b'{"seq"')
    assert tail(home.directory, 2) == lines[-2:]
