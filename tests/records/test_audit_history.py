"""Histories that are whole in themselves and yet not what was written: who else has to be asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.records.audit import Limits
from serving.records.chain import Flaw
from serving.records.errors import RecordsUnavailable
from serving.records.folder import Folder
from serving.records.record import GENESIS, Kind, Record, decode, digest, encode
from serving.records.signing import KeyFolder
from serving.records.statements import Head
from tests.records.falsified import Log, at, first
from tests.records.logs import Clock, Home, refusal


def rewritten(log: Log, index: int, change: Callable[[dict[str, str | int]], None]) -> dict[str, bytes]:
    """The log as somebody without the key would write it anew from a line on, with every hash right."""
    prev, segments = GENESIS, log.changed(lambda _: None)
    for name in segments:
        lines = []
        for raw in log.segments[name]:
            line = decode(raw)
            assert line is not None
            fields: dict[str, str | int] = json.loads(raw)["fields"]
            if line.seq == index + 1:
                change(fields)
            stepped = json.loads(raw).get("clock_stepped", 0)
            lines.append(encode(line.seq, line.time, _unchecked(line.kind, fields), prev, stepped))
            prev = digest(lines[-1])
        segments[name] = b"".join(lines)
    return segments


def _unchecked(kind: str, fields: dict[str, str | int]) -> Record:
    record = object.__new__(Record)
    object.__setattr__(record, "kind", Kind(kind))
    object.__setattr__(record, "fields", fields)
    return record


@pytest.mark.parametrize("index", [0, 13, 30])
def test_a_history_written_anew_stumbles_over_the_next_signature(log: Log, index: int) -> None:
    assert rewritten(log, index, lambda _: None) == log.changed(lambda _: None)
    verdict = log.verdict(rewritten(log, index, lambda fields: fields.update(reason="other")))
    checkpoints = [at for at in range(len(log.lines)) if b'"checkpoint"' in log.line(at) and at > index]
    assert first(verdict).flaw is Flaw.SIGNATURE
    assert at(first(verdict)) == log.lines[checkpoints[0]]


def test_a_last_record_written_anew_stumbles_over_the_head(log: Log) -> None:
    last = len(log.lines) - 1
    verdict = log.verdict(rewritten(log, last, lambda fields: fields.update(reason="other")))
    assert [(fault.flaw, at(fault)) for fault in verdict.faults] == [(Flaw.ALTERED, log.lines[last])]


def test_a_head_of_another_key_or_country_is_none(log: Log, tmp_path: Path) -> None:
    segments = log.changed(lambda _: None)
    said = Head.open(log.head.decode().strip(), log.keys, "ee")
    stranger = KeyFolder(tmp_path / "strange").current()
    assert first(log.verdict(segments, said.seal(stranger).encode())).flaw is Flaw.HEAD
    foreign = Head.of_nothing("kr", 0).seal(log.home.keys.current())
    assert first(log.verdict(segments, foreign.encode())).flaw is Flaw.HEAD


def test_an_old_state_put_back_is_told_by_what_somebody_holds(log: Log, tmp_path: Path) -> None:
    home = Home(tmp_path)
    writer = home.log(Limits())
    writer.append([refusal(number) for number in range(3)])
    shutil.copytree(home.directory, tmp_path / "old")
    held = writer.append([refusal(number) for number in range(5)])[-1]
    shutil.rmtree(home.directory)
    shutil.copytree(tmp_path / "old", home.directory)
    assert home.verdict().ok
    fault = first(home.verdict({held.seq - 1: held.prev}))
    assert (fault.flaw, fault.place.seq) == (Flaw.TRUNCATED, 4)
    assert first(home.verdict({2: "a" * 64})).flaw is Flaw.ALTERED
    assert home.verdict({1: digest(home.lines()[0])}).ok


def test_records_that_vanished_need_a_signed_word(home: Home) -> None:
    clock = Clock()
    writer = home.log(Limits(segment_s=60), clock)
    for _ in range(4):
        writer.append([refusal()] * 3)
        clock.now += 86_400_000
    assert writer.retain(3) == 1
    assert home.verdict().ok
    home.segments()[0].unlink()
    fault = first(home.verdict())
    assert (fault.flaw, fault.place.seq) == (Flaw.MISSING, 1)


def test_a_clock_that_goes_back_without_a_mark_is_a_fault(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    writer = home.log(Limits(), clock)
    writer.append([refusal()] * 2)
    clock.now -= 5000
    monkeypatch.setattr("serving.records.batch.max", lambda *_: 0, raising=False)
    writer.append([refusal()])
    assert [(fault.flaw, fault.place.seq) for fault in home.verdict().faults] == [(Flaw.CLOCK, 3)]


def test_a_writer_at_work_is_not_in_the_way(home: Home) -> None:
    writer = home.log()
    for number in range(20):
        writer.append([refusal(number)] * 3)
        assert home.verdict().ok


def test_a_batch_that_is_being_written_is_waited_for(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.log().append([refusal()])
    monkeypatch.setattr("serving.records.files.PATIENCE_S", 0.02)
    with Folder(home.directory).locked(), pytest.raises(RecordsUnavailable, match="another process"):
        home.verdict()
    with Folder(home.directory).locked(shared=True):
        assert home.verdict().ok
