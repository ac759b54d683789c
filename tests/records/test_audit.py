"""What the log does while nothing goes wrong, and what it refuses to go on with."""

from __future__ import annotations

import json
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from serving.records.audit import AuditLog, Limits
from serving.records.errors import RecordsUnavailable
from serving.records.folder import Folder
from serving.records.ground import RecordsGround
from serving.records.record import GENESIS, Kind, Record
from tests.records.logs import NOW, Clock, Home, answered, refusal

DAY_MS = 86_400_000
PLAIN = Limits(checkpoint_records=10**6, checkpoint_s=10**9)


def kinds(home: Home) -> list[str]:
    return [json.loads(line)["kind"] for line in home.lines()]


def test_every_line_names_the_hash_of_the_one_before(home: Home) -> None:
    log = home.log()
    written = log.append([refusal(number) for number in range(20)])
    written += home.log().append([answered().record()])
    lines = home.lines()
    hashes = [GENESIS, *(sha256(line).hexdigest() for line in lines)]
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert [json.loads(line)["prev"] for line in lines] == hashes[:-1]
    assert [(each.prev, json.loads(lines[each.seq - 1])["kind"]) for each in written] == [
        *((hashes[each.seq - 1], "refusal") for each in written[:-1]),
        (hashes[written[-1].seq - 1], "request"),
    ]
    assert home.verdict().ok


def test_files_are_their_owner_s_alone(home: Home) -> None:
    home.log().append([refusal(number) for number in range(50)])
    assert len(home.segments()) >= 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.directory.iterdir()} == {0o600}
    assert stat.S_IMODE(home.directory.stat().st_mode) == 0o700


def test_folders_that_are_made_on_the_way_are_too(tmp_path: Path) -> None:
    ground = RecordsGround(tmp_path / "home" / "countries" / "ee", "ee")
    ground.receipts().close()
    ground.audit().close()
    made = [path for path in (tmp_path / "home").rglob("*") if path.is_dir()]
    assert len(made) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700}


def test_no_record_is_no_batch(home: Home) -> None:
    log = home.log()
    head = (home.directory / "head.jws").read_bytes()
    assert log.append([]) == []
    assert (home.directory / "head.jws").read_bytes() == head


def test_the_log_s_own_kinds_are_not_for_callers(home: Home) -> None:
    with pytest.raises(ValueError, match="own"):
        home.log().append([refusal(), Record(Kind.CHECKPOINT, {"statement": "a.b.c"})])
    assert home.lines() == []


def test_checkpoints_come_by_number_by_time_and_at_the_end(home: Home) -> None:
    clock = Clock()
    log = home.log(Limits(checkpoint_records=3, checkpoint_s=60), clock)
    log.append([refusal()] * 4)
    assert kinds(home) == ["refusal", "refusal", "refusal", "checkpoint", "refusal"]
    clock.now += 59_999
    log.append([refusal()])
    assert kinds(home)[5:] == ["refusal"]
    clock.now += 1
    log.append([refusal()])
    assert kinds(home)[6:] == ["refusal", "checkpoint"]
    log.close()
    assert kinds(home)[8:] == []
    log.append([refusal()])
    log.close()
    assert kinds(home)[8:] == ["refusal", "checkpoint"]
    assert len(home.verdict().checkpoints) == 3


def test_segments_turn_by_size_and_by_age(home: Home) -> None:
    clock = Clock()
    log = home.log(Limits(segment_bytes=1000, segment_s=100), clock)
    for number in range(12):
        log.append([refusal(number)])
    assert len(home.segments()) > 1
    assert all(path.stat().st_size < 2000 for path in home.segments())
    before = len(home.segments())
    clock.now += 100_000
    log.append([refusal()])
    assert len(home.segments()) == before + 1
    first = json.loads(home.segments()[-1].read_bytes().splitlines()[0])["seq"]
    assert home.segments()[-1].name == f"audit-{first:012}.jsonl"
    assert home.verdict().ok


def test_a_clock_that_is_set_back_is_marked_and_stops_nothing(home: Home) -> None:
    clock = Clock()
    log = home.log(PLAIN, clock)
    log.append([refusal()] * 2)
    clock.now -= 90_000
    log.append([refusal()] * 2)
    clock.now += 1
    log.append([refusal()])
    records = [json.loads(line) for line in home.lines()]
    assert [record.get("clock_stepped") for record in records] == [None, None, 90_000, None, None]
    assert records[2]["time"] < records[1]["time"]
    assert [record["seq"] for record in records] == [1, 2, 3, 4, 5]
    assert home.verdict().ok


def test_another_process_sees_the_step_too(home: Home) -> None:
    home.log(PLAIN, Clock()).append([refusal()])
    home.log(PLAIN, Clock(NOW - 5)).append([refusal()])
    assert json.loads(home.lines()[1])["clock_stepped"] == 5


def test_what_is_old_is_removed_with_a_signed_word(home: Home) -> None:
    clock = Clock()
    log = home.log(Limits(segment_s=3600), clock)
    for _ in range(6):
        log.append([refusal()] * 3)
        clock.now += DAY_MS
    assert len(home.segments()) == 6
    assert log.retain(10) == 0
    assert log.retain(4) == 2
    assert log.retain(4) == 0
    # Three records and a checkpoint a segment. The removal is a record itself, and begins a segment here.
    assert [path.name[-8:-6] for path in home.segments()] == ["08", "12", "16", "20", "24"]
    verdict = home.verdict()
    assert verdict.ok
    assert (verdict.first, verdict.last) == (8, 25)
    assert kinds(home).count("removal") == 1
    clock.now += 30 * DAY_MS
    assert log.retain(1) == 4
    assert home.verdict().ok
    with pytest.raises(ValueError, match="a day"):
        log.retain(0)


def test_a_removal_cut_short_is_a_whole_log(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    log = home.log(Limits(segment_s=3600), clock)
    for _ in range(5):
        log.append([refusal()] * 3)
        clock.now += DAY_MS
    unlink, left = Path.unlink, [1]

    def once(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".jsonl" and not left:
            raise OSError(5, "Input/output error")
        if path.suffix == ".jsonl":
            left.pop()
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", once)
        with pytest.raises(RecordsUnavailable):
            log.retain(1)
    assert home.segments()[0].name == "audit-000000000004.jsonl"
    assert home.verdict().ok
    assert log.retain(1) == 3
    assert home.verdict().ok


def test_a_head_that_cannot_be_moved_takes_its_lines_back(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    log = home.log()
    log.append([refusal()])
    before = home.lines()

    def fails(folder: Folder, token: str) -> None:
        raise RecordsUnavailable("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "replace_head", fails)
        with pytest.raises(RecordsUnavailable, match="disk full"):
            log.append([refusal()] * 3)
    assert home.lines() == before
    assert log.append([refusal()])[0].seq == 2
    assert home.verdict().ok


def test_a_place_where_nothing_can_be_written(home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordsUnavailable, match="cannot write"):
        AuditLog(tmp_path / "file" / "audit", "ee", home.keys)


def test_a_segment_that_cannot_be_written(home: Home) -> None:
    log = home.log(Limits(segment_bytes=1))
    log.append([refusal()])
    # The next segment would be this folder: root may write to any file, and to no folder.
    (home.directory / f"audit-{len(home.lines()) + 1:012}.jsonl").mkdir()
    with pytest.raises(RecordsUnavailable):
        log.append([refusal()])


def test_a_writer_that_stopped_with_the_lock_is_not_waited_for_long(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = home.log()
    monkeypatch.setattr("serving.records.files.PATIENCE_S", 0.05)
    with Folder(home.directory).locked(), pytest.raises(RecordsUnavailable, match="another process"):
        log.append([refusal()])
    assert log.append([refusal()])


def test_r6_a_log_has_one_country(home: Home) -> None:
    home.log().append([refusal()])
    with pytest.raises(RecordsUnavailable, match="another country"):
        AuditLog(home.directory, "kr", home.keys)


@pytest.mark.parametrize("harm", ["shorter", "headless", "forged", "older keys"])
def test_a_log_that_was_tampered_with_is_not_written_over(home: Home, tmp_path: Path, harm: str) -> None:
    log = home.log(PLAIN)
    log.append([refusal(number) for number in range(5)])
    segment, head = home.segments()[0], home.directory / "head.jws"
    if harm == "shorter":
        segment.write_bytes(b"".join(home.lines()[:-1]))
    elif harm == "headless":
        head.unlink()
    elif harm == "forged":
        head.write_text(head.read_text()[:-10] + "AAAAAAAAA\n")
    else:
        (tmp_path / "signing" / "current.pem").unlink()
    before = segment.read_bytes()
    if harm != "older keys":
        with pytest.raises(RecordsUnavailable):
            log.append([refusal()])
    with pytest.raises(RecordsUnavailable):
        home.log()
    assert segment.read_bytes() == before
    assert not home.verdict().ok


def test_a_rotated_key_signs_on_and_the_old_checkpoints_hold(home: Home) -> None:
    clock = Clock()
    log = home.log(Limits(checkpoint_records=2), clock)
    log.append([refusal()] * 5)
    home.keys.rotate(clock.now / 1000)
    clock.now += 120_000
    log.append([refusal()] * 5)
    verdict = home.verdict()
    assert verdict.ok
    assert len({token.split(".")[0] for token in verdict.checkpoints}) == 2
