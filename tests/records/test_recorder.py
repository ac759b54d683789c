from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count

import pytest

from serving.records import recorder as module
from serving.records.audit import AuditLog
from serving.records.batch import Written
from serving.records.errors import RecordsUnavailable
from serving.records.receipt_store import Kept, ReceiptNotFound
from serving.records.receipts import verify
from serving.records.record import GENESIS, Record, digest
from serving.records.recorder import BATCH, Recorder
from tests.records.fakes import MemoryReceipts
from tests.records.logs import Home, answered, refusal


class House:
    """A recorder, what it writes to, and ways to trip it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.audit = home.log()
        self.receipts = MemoryReceipts()
        self.recorder = Recorder(self.audit, home.keys, self.receipts)

    def kinds(self) -> list[str]:
        return [json.loads(line)["kind"] for line in self.home.lines()]


@pytest.fixture
def house(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(module, "PAUSES_S", (0.005,))
    house = House(home)
    yield house
    house.receipts.failing = False
    house.recorder.close(5)


def eventually(true: Callable[[], bool]) -> bool:
    ends = time.monotonic() + 5
    while not true() and time.monotonic() < ends:
        time.sleep(0.002)
    return true()


def test_what_is_noted_is_logged_signed_and_kept(house: House) -> None:
    served = [answered(number) for number in range(5)]
    for each in served:
        house.recorder.note(each)
    house.recorder.note(refusal())
    assert house.recorder.flush(5)
    assert house.kinds() == ["request"] * 5 + ["refusal"]
    lines, keys = house.home.lines(), house.home.keys.public()
    for place, each in enumerate(served):
        receipt = verify(house.receipts.get(each.receipt, "acme").token, keys, now=time.time())
        assert receipt.request == each.request
        before = digest(lines[place - 1]) if place else GENESIS
        assert receipt.audit == Written(place + 1, before)
        assert json.loads(lines[place])["fields"]["receipt"] == receipt.id
    assert len(house.receipts.kept) == 5
    assert house.home.verdict().ok


def test_it_comes_without_being_asked_for(house: House) -> None:
    house.recorder.note(answered())
    assert eventually(lambda: len(house.receipts.kept) == 1)
    assert house.recorder.waiting == 0 or eventually(lambda: house.recorder.waiting == 0)


def test_what_comes_together_is_written_together(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    append = AuditLog.append

    def counted(log: AuditLog, records: Sequence[Record]) -> list[Written]:
        sizes.append(len(records))
        return append(log, records)

    monkeypatch.setattr(AuditLog, "append", counted)
    for number in range(2 * BATCH + 10):
        house.recorder.note(refusal(number))
    assert house.recorder.flush(5)
    assert sum(sizes) == 2 * BATCH + 10
    assert max(sizes) <= BATCH
    assert len(sizes) <= 6


def test_noting_waits_for_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(MemoryReceipts, "add", lambda *_: release.wait(10))
    began = time.monotonic()
    for number in range(1000):
        house.recorder.note(answered(number))
    assert time.monotonic() - began < 5
    assert house.recorder.flush(0.05) is False
    release.set()
    assert house.recorder.flush(5)


def test_a_store_that_fails_is_said_and_nothing_is_lost_or_logged_twice(house: House) -> None:
    house.receipts.failing = True
    served = answered()
    house.recorder.note(served)
    assert eventually(lambda: not house.recorder.healthy)
    assert house.recorder.failure == "the disk is full"
    house.recorder.note(refusal())
    time.sleep(0.05)
    assert house.kinds() == ["request"]
    with pytest.raises(ReceiptNotFound):
        house.receipts.get(served.receipt, "acme")
    house.receipts.failing = False
    assert house.recorder.flush(5)
    assert house.recorder.healthy
    assert house.recorder.failure is None
    assert house.kinds() == ["request", "refusal"]
    assert house.receipts.get(served.receipt, "acme")


def test_a_store_that_kept_and_did_not_say_so_is_told_the_same_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, said = MemoryReceipts.add, []

    def kept(store: MemoryReceipts, receipts: Sequence[Kept]) -> None:
        said.append(list(receipts))
        add(store, receipts)
        if len(said) == 1:
            raise RecordsUnavailable("the answer was lost")

    monkeypatch.setattr(MemoryReceipts, "add", kept)
    monkeypatch.setattr("serving.records.recorder.time.time", count(1_770_000_000).__next__)
    house.recorder.note(answered())
    assert house.recorder.flush(5)
    assert said[0] == said[1]


@pytest.mark.parametrize("error", [RecordsUnavailable("read-only"), RuntimeError("a prompt")])
def test_a_log_that_fails_is_said_and_tried_again(
    house: House, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> list[Written]:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(AuditLog, "append", fails)
        house.recorder.note(answered())
        assert eventually(lambda: not house.recorder.healthy)
        # R7: only our own errors are known to quote nothing.
        assert house.recorder.failure in ("read-only", "RuntimeError")
        assert house.receipts.kept == {}
    assert house.recorder.flush(5)
    assert house.recorder.healthy
    assert house.kinds() == ["request"]


def test_a_full_queue_is_unhealthy_before_it_refuses(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FULL", 10)
    monkeypatch.setattr(module, "RESERVE", 5)
    release = threading.Event()
    monkeypatch.setattr(MemoryReceipts, "add", lambda *_: release.wait(10))
    for number in range(9):
        house.recorder.note(refusal(number))
        assert house.recorder.healthy
    house.recorder.note(refusal(9))
    assert not house.recorder.healthy
    for number in range(10, 15):
        house.recorder.note(refusal(number))
    with pytest.raises(RecordsUnavailable, match="full"):
        house.recorder.note(refusal(15))
    release.set()
    assert house.recorder.flush(5)
    assert house.recorder.healthy
    assert len(house.kinds()) >= 15


def test_r7_what_no_record_may_hold_is_refused_where_it_is_noted(house: House) -> None:
    with pytest.raises(ValueError, match="as model"):
        house.recorder.note(replace(answered(), model="once upon a time"))
    house.recorder.note(refusal())
    assert house.recorder.flush(5)
    assert house.recorder.healthy
    assert house.kinds() == ["refusal"]


def test_closing_writes_what_is_there_and_signs_the_end(house: House) -> None:
    for number in range(20):
        house.recorder.note(answered(number))
    assert house.recorder.close(5)
    assert house.receipts.closed
    assert len(house.receipts.kept) == 20
    assert house.kinds()[-1] == "checkpoint"
    with pytest.raises(RecordsUnavailable, match="closed"):
        house.recorder.note(refusal())
    assert not house.recorder.healthy
    assert house.recorder.close(5)


def test_closing_has_an_end(house: House) -> None:
    house.receipts.failing = True
    house.recorder.note(answered())
    began = time.monotonic()
    assert house.recorder.close(0.1) is False
    assert time.monotonic() - began < 3


def test_a_rotated_key_signs_the_next_receipts(house: House) -> None:
    first, second = answered(1), answered(2)
    house.recorder.note(first)
    assert house.recorder.flush(5)
    house.home.keys.rotate(time.time())
    house.recorder.note(second)
    assert house.recorder.flush(5)
    tokens = [house.receipts.get(each.receipt, "acme").token for each in (first, second)]
    assert tokens[0].split(".")[0] != tokens[1].split(".")[0]
    assert all(verify(token, house.home.keys.public(), now=time.time()) for token in tokens)


def test_many_threads_may_note(house: House) -> None:
    def note(name: int) -> None:
        for number in range(100):
            house.recorder.note(refusal(name * 1000 + number))

    threads = [threading.Thread(target=note, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert house.recorder.flush(5)
    requests = [json.loads(line)["fields"].get("request") for line in house.home.lines()]
    assert {request for request in requests if request} == {
        f"req_{name * 1000 + number}" for name in range(4) for number in range(100)
    }
