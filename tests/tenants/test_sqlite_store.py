from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tenants.sqlite_store import SqliteStore
from tenants.store import StoreError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    SqliteStore.open(tmp_path / "tenants.sqlite", "ee").close()
    return tmp_path / "tenants.sqlite"


def test_r6_a_file_has_one_country(path: Path) -> None:
    with pytest.raises(StoreError, match="belongs to ee, not to kr"):
        SqliteStore.open(path, "kr")


def test_a_file_of_a_later_release_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="has schema 99, this release knows 1"):
        SqliteStore.open(path, "ee")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "tenants.sqlite").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        SqliteStore.open(tmp_path / "tenants.sqlite", "ee")


def test_a_file_in_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        SqliteStore.open(tmp_path / "none" / "tenants.sqlite", "ee")


def test_a_closed_store_says_so(path: Path) -> None:
    store = SqliteStore.open(path, "ee")
    store.close()
    for use in (store.version, store.list_organisations):
        with pytest.raises(StoreError):
            use()


def test_a_writer_that_waits_too_long_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenants.sqlite_store.BUSY_TIMEOUT_S", 0.05)
    with SqliteStore.open(path, "ee") as waiting, SqliteStore.open(path, "ee") as holding, holding._transaction():
        assert waiting.list_keys() == []
        with pytest.raises(StoreError, match="locked"), waiting._transaction():
            pass
