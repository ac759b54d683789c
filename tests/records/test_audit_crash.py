"""Writers that die, disks that fill, and several processes at once, with real processes where it matters."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from serving.records.audit import Limits
from serving.records.errors import RecordsUnavailable
from serving.records.folder import Folder
from serving.records.record import encode
from tests.records.logs import Home, refusal

WRITER = """
import pathlib, sys
from serving.records.audit import Limits
from serving.records.record import encode
from tests.records.logs import Home, refusal
home, name, turns = Home(pathlib.Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
log = home.log(Limits(segment_bytes=20_000, checkpoint_records=50, durable=False), lambda: 1_770_000_000_000)
print("ready", flush=True)
for turn in range(turns):
    written = log.append([refusal(name * 1_000_000 + turn * 10 + number) for number in range(turn % 7 + 1)])
    print(*(each.seq for each in written), flush=True)
"""
PLAIN = Limits(checkpoint_records=10**6, checkpoint_s=10**9)


def writer(home: Home, name: int, turns: int) -> subprocess.Popen[str]:
    arguments = [str(home.directory.parent), str(name), str(turns)]
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True)


def acknowledged(output: str) -> list[list[int]]:
    """The batches that ``append`` returned for; the last may have been cut off in print."""
    return [list(map(int, line.split())) for line in output.splitlines(keepends=True)[1:] if line.endswith("\n")]


def test_processes_that_append_at_once_lose_and_mix_nothing_and_verify_meanwhile(home: Home) -> None:
    home.log()
    writers = [writer(home, name, 40) for name in range(3)]
    while any(each.poll() is None for each in writers):
        assert home.verdict().faults == ()
        time.sleep(0.01)
    outputs = [each.communicate(timeout=100)[0] for each in writers]
    assert [each.returncode for each in writers] == [0, 0, 0]
    records = [json.loads(line) for line in home.lines()]
    requests = {record["seq"]: record["fields"]["request"] for record in records if record["kind"] == "refusal"}
    for name, output in enumerate(outputs):
        for turn, batch in enumerate(acknowledged(output)):
            expected = [f"req_{name * 1_000_000 + turn * 10 + number}" for number in range(turn % 7 + 1)]
            assert [requests.pop(seq) for seq in batch] == expected
            assert batch[-1] - batch[0] <= len(batch)
    assert requests == {}
    verdict = home.verdict()
    assert verdict.ok
    assert verdict.beyond == 0


def test_a_writer_that_is_killed_loses_nothing_it_had_returned_for(home: Home) -> None:
    home.log()
    seen: set[str] = set()
    for name in range(3):
        process = writer(home, name, 10**6)
        assert process.stdout is not None
        told = "".join(process.stdout.readline() for _ in range(20))
        time.sleep(0.01 + name * 0.005)
        process.send_signal(signal.SIGKILL)
        batches = acknowledged(told + process.communicate(timeout=60)[0])
        assert len(batches) >= 19
        whole = [line for line in home.lines() if line.endswith(b"\n")]
        by_seq = {record["seq"]: record["fields"] for record in map(json.loads, whole)}
        for turn, batch in enumerate(batches):
            requests = [by_seq[seq]["request"] for seq in batch]
            assert requests == [f"req_{name * 1_000_000 + turn * 10 + number}" for number in range(turn % 7 + 1)]
            seen.update(requests)
    home.log().append([refusal(10**9)])
    assert home.verdict().ok
    counts = Counter(json.loads(line)["fields"].get("request") for line in home.lines())
    assert {counts[request] for request in seen} == {1}


HALF = b'{"seq":4,"time":"2026-02-02T02:4'
NULS = bytes(700)
FOREIGN = encode(4, "2026-02-02T02:40:00.000Z", refusal(), "f" * 64)


@pytest.mark.parametrize("rest", [HALF, NULS, HALF + b"\n" + HALF, b"\n", b"\xff\xfe\n", FOREIGN, FOREIGN + HALF])
def test_half_a_line_is_put_aside_and_told_of(home: Home, rest: bytes) -> None:
    home.log(PLAIN).append([refusal(number) for number in range(3)])
    before = home.lines()
    with home.segments()[0].open("ab") as file:
        file.write(rest)
    assert home.verdict().ok is (b"\n" not in rest)
    written = home.log(PLAIN).append([refusal(9)])
    assert home.lines()[:3] == before
    told = json.loads(home.lines()[3])
    assert (told["kind"], told["fields"]["torn_bytes"], told["fields"]["adopted"]) == ("recovery", len(rest), 0)
    assert (home.directory / "torn-000000000004").read_bytes() == rest
    assert [each.seq for each in written] == [5]
    assert home.verdict().ok


def test_a_living_writer_mends_what_another_left(home: Home) -> None:
    log = home.log(PLAIN)
    log.append([refusal()])
    with home.segments()[0].open("ab") as file:
        file.write(HALF)
    assert log.append([refusal()])[0].seq == 3
    assert home.verdict().ok


def test_whole_lines_after_the_head_are_taken_up(home: Home) -> None:
    """A writer that dies between its lines and its head has told nobody that they are written, but they are."""
    log = home.log(PLAIN)
    log.append([refusal(0)])
    head = (home.directory / "head.jws").read_bytes()
    log.append([refusal(number) for number in range(1, 4)])
    (home.directory / "head.jws").write_bytes(head)
    with home.segments()[0].open("ab") as file:
        file.write(HALF)
    verdict = home.verdict()
    assert verdict.ok
    assert verdict.beyond == 3
    assert home.log(PLAIN).append([refusal(9)])[0].seq == 6
    told = json.loads(home.lines()[4])
    assert (told["fields"]["adopted"], told["fields"]["torn_bytes"]) == (3, len(HALF))
    assert home.verdict().ok
    assert home.verdict().beyond == 0


def test_so_is_a_segment_that_the_head_does_not_know_yet(home: Home) -> None:
    log = home.log(Limits(segment_bytes=1, checkpoint_s=10**9))
    log.append([refusal(0)])
    head = (home.directory / "head.jws").read_bytes()
    log.append([refusal(1)])
    (home.directory / "head.jws").write_bytes(head)
    assert home.log(PLAIN).append([refusal(2)])[0].seq == 4
    assert home.verdict().ok
    assert [json.loads(line)["kind"] for line in home.lines()] == ["refusal", "refusal", "recovery", "refusal"]


def test_an_empty_segment_that_was_just_begun_is_filled(home: Home) -> None:
    home.log(PLAIN).append([refusal()])
    (home.directory / "audit-000000000002.jsonl").touch()
    home.log(PLAIN).append([refusal()])
    assert home.lines()[1] == home.segments()[1].read_bytes()
    assert home.verdict().ok


def test_a_crash_between_putting_aside_and_telling_is_told_of_later(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = home.log(PLAIN)
    living.append([refusal()])
    with home.segments()[0].open("ab") as file:
        file.write(HALF)

    def dies(*_: object, **__: object) -> None:
        raise RecordsUnavailable("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "append", dies)
        with pytest.raises(RecordsUnavailable):
            home.log(PLAIN)
    assert len(home.lines()) == 1
    living.append([refusal()])
    assert [json.loads(line)["kind"] for line in home.lines()] == ["refusal", "recovery", "refusal"]
    assert home.verdict().ok


FULL_DISK = """
import pathlib, resource, sys
from serving.records.audit import Limits
from serving.records.errors import RecordsUnavailable
from serving.records.record import encode
from tests.records.logs import Home, refusal
log = Home(pathlib.Path(sys.argv[1])).log(Limits(checkpoint_records=50))
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
last = 0
try:
    while True:
        last = log.append([refusal(number) for number in range(7)])[-1].seq
except RecordsUnavailable as error:
    print(last, error)
"""


def test_a_full_disk_is_said_and_leaves_nothing_half_written(home: Home) -> None:
    home.log()
    command = [sys.executable, "-c", FULL_DISK, str(home.directory.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    last, _, said = done.stdout.partition(" ")
    assert "File too large" in said
    assert json.loads(home.lines()[-1])["seq"] == int(last)
    assert sorted(path.name for path in home.directory.iterdir()) == ["audit-000000000001.jsonl", "head.jws", "lock"]
    verdict = home.verdict()
    assert verdict.ok
    assert (verdict.last, verdict.beyond) == (int(last), 0)
    assert home.log().append([refusal()])[0].seq == int(last) + 1
