"""What every store of receipts does."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from serving.records.errors import RecordsUnavailable
from serving.records.receipt_store import Kept, ReceiptNotFound, ReceiptStore, ReceiptTaken
from serving.records.sqlite_receipts import SqliteReceipts
from tests.records.fakes import MemoryReceipts

ONE = Kept("rcpt_1", "acme", 100, "a.b.c")
TWO = Kept("rcpt_2", "beam", 200, "d.e.f")

Opener = Callable[[], ReceiptStore]


def sqlite(folder: Path, _: dict[str, Kept]) -> ReceiptStore:
    return SqliteReceipts.open(folder / "records" / "receipts.sqlite", "ee")


def memory(_: Path, kept: dict[str, Kept]) -> ReceiptStore:
    return MemoryReceipts(kept)


@pytest.fixture(params=[sqlite, memory])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same country's store again and again, as several processes would."""
    opened: list[ReceiptStore] = []
    kept: dict[str, Kept] = {}

    def open_again() -> ReceiptStore:
        opened.append(request.param(tmp_path, kept))
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()


@pytest.fixture
def store(opener: Opener) -> ReceiptStore:
    return opener()


def test_what_is_kept_comes_back_the_same(store: ReceiptStore, opener: Opener) -> None:
    store.add([ONE, TWO])
    for reader in (store, opener()):
        assert reader.get("rcpt_1", "acme") == ONE
        assert reader.get("rcpt_2", "beam") == TWO


def test_another_organisation_s_receipt_is_not_there(store: ReceiptStore) -> None:
    store.add([ONE, TWO])
    for id, organisation in (("rcpt_1", "beam"), ("rcpt_2", "acme"), ("rcpt_3", "acme"), ("rcpt_1", ""), ("", "acme")):
        with pytest.raises(ReceiptNotFound) as missing:
            store.get(id, organisation)
        assert str(missing.value) == ""


def test_a_batch_may_be_tried_again(store: ReceiptStore) -> None:
    store.add([ONE])
    store.add([ONE, TWO])
    store.add([])
    assert store.get("rcpt_2", "beam") == TWO


@pytest.mark.parametrize("change", [{"token": "x.y.z"}, {"organisation": "beam"}, {"iat": 101}])
def test_an_id_is_given_once_and_a_batch_is_kept_whole_or_not(
    store: ReceiptStore, change: dict[str, str | int]
) -> None:
    store.add([ONE])
    with pytest.raises(ReceiptTaken, match="rcpt_1"):
        store.add([TWO, replace(ONE, **change)])  # type: ignore[arg-type] # names and types as in the parameters
    assert store.get("rcpt_1", "acme") == ONE
    with pytest.raises(ReceiptNotFound):
        store.get("rcpt_2", "beam")


def test_old_ones_are_forgotten(store: ReceiptStore) -> None:
    store.add([ONE, TWO])
    assert store.drop_before(100) == 0
    assert store.drop_before(200) == 1
    assert store.get("rcpt_2", "beam") == TWO
    with pytest.raises(ReceiptNotFound):
        store.get("rcpt_1", "acme")


def test_writers_at_once_all_get_through(store: ReceiptStore, opener: Opener) -> None:
    stores = [opener() for _ in range(3)]
    failures: list[Exception] = []

    def write(number: int) -> None:
        try:
            for turn in range(10):
                stores[number % 3].add([replace(ONE, id=f"rcpt_{number}_{turn}")])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert all(store.get(f"rcpt_{number}_9", "acme") for number in range(6))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    SqliteReceipts.open(tmp_path / "receipts.sqlite", "ee").close()
    return tmp_path / "receipts.sqlite"


def test_r6_a_file_has_one_country(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(RecordsUnavailable, match="belongs to ee, not to kr"):
        SqliteReceipts.open(path, "kr")


def test_a_file_of_a_later_release_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RecordsUnavailable, match="has schema 99, this release knows 1"):
        SqliteReceipts.open(path, "ee")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "receipts.sqlite").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(RecordsUnavailable, match="cannot be used"):
        SqliteReceipts.open(tmp_path / "receipts.sqlite", "ee")


def test_a_place_where_nothing_can_be_made(path: Path) -> None:
    with pytest.raises(RecordsUnavailable, match="cannot be used"):
        SqliteReceipts.open(path / "none" / "receipts.sqlite", "ee")


def test_a_closed_store_says_so(path: Path) -> None:
    store = SqliteReceipts.open(path, "ee")
    store.close()
    with pytest.raises(RecordsUnavailable, match="cannot be used"):
        store.add([ONE])


def test_a_writer_that_waits_too_long_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.records.sqlite_receipts.BUSY_TIMEOUT_S", 0.05)
    with SqliteReceipts.open(path, "ee") as waiting, SqliteReceipts.open(path, "ee") as other:
        with other._transaction(), pytest.raises(RecordsUnavailable, match="locked"):
            waiting.add([ONE])
        waiting.add([ONE])


def test_a_full_disk_keeps_nothing_of_a_batch(path: Path) -> None:
    with SqliteReceipts.open(path, "ee") as store:
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(RecordsUnavailable, match="full"):
            store.add([replace(ONE, id=f"rcpt_{number}", token="x" * 1000) for number in range(50)])
        with pytest.raises(ReceiptNotFound):
            store.get("rcpt_0", "acme")
        store.add([ONE])
        assert store.get("rcpt_1", "acme") == ONE
