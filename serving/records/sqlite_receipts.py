"""Receipts in one SQLite file (WAL). Gateways of the country share it, each with a connection of its own."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

from serving.records.errors import RecordsUnavailable
from serving.records.files import make_private
from serving.records.receipt_store import Kept, ReceiptNotFound, ReceiptTaken
from tenants.private import private_draft

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 5.0

_SCHEMA = (
    "CREATE TABLE home (country TEXT NOT NULL)",
    "CREATE TABLE receipts (id TEXT NOT NULL UNIQUE, organisation TEXT NOT NULL, iat INTEGER NOT NULL, token TEXT)",
    "CREATE INDEX receipts_by_time ON receipts (iat)",
)


class SqliteReceipts:
    """A :class:`~serving.records.receipt_store.ReceiptStore`. May be shared between threads."""

    def __init__(self, connection: sqlite3.Connection, country: str) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._country = country

    @classmethod
    def open(cls, path: Path, country: str) -> Self:
        """Open or create the file. Raises :class:`RecordsUnavailable` for one of another country or a later release."""
        with _translated():
            if not path.exists():
                make_private(path.parent)
                _create(path, country)
            # By name: closing a descriptor of the file would drop the locks of this process's connections.
            os.chmod(path, 0o600)
            store = cls(_connect(path), country)
        try:
            store._require_own_file(path)
        except BaseException:
            store.close()
            raise
        return store

    @property
    def country(self) -> str:
        return self._country

    def add(self, receipts: Sequence[Kept]) -> None:
        rows = [(kept.id, kept.organisation, kept.iat, kept.token) for kept in receipts]
        with self._transaction():
            added = self._connection.executemany("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?)", rows).rowcount
            if added < len(rows):
                self._require_same(receipts)

    def get(self, id: str, organisation: str) -> Kept:
        query = "SELECT id, organisation, iat, token FROM receipts WHERE id = ? AND organisation = ?"
        with self._lock, _translated():
            row = self._connection.execute(query, (id, organisation)).fetchone()
        if row is None:
            raise ReceiptNotFound
        return Kept(*row)

    def drop_before(self, iat: int) -> int:
        with self._transaction():
            return self._connection.execute("DELETE FROM receipts WHERE iat < ?", (iat,)).rowcount

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_same(self, receipts: Sequence[Kept]) -> None:
        for kept in receipts:
            query = "SELECT id, organisation, iat, token FROM receipts WHERE id = ?"
            if Kept(*self._connection.execute(query, (kept.id,)).fetchone()) != kept:
                raise ReceiptTaken(f"receipt {kept.id} exists already")

    def _require_own_file(self, path: Path) -> None:
        with _translated():
            (schema,) = self._connection.execute("PRAGMA user_version").fetchone()
            if schema != SCHEMA_VERSION:
                raise RecordsUnavailable(f"{path} has schema {schema}, this release knows {SCHEMA_VERSION}")
            (owner,) = self._connection.execute("SELECT country FROM home").fetchone()
        if owner != self._country:
            raise RecordsUnavailable(f"{path} belongs to {owner}, not to {self._country}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, _translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite itself has rolled back when the disk is full.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def _create(path: Path, country: str) -> None:
    # Made aside and named when complete: switching to WAL does not wait for others who do the same.
    with private_draft(path) as draft, closing(_connect(draft)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO home VALUES (?)", (country,))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise RecordsUnavailable(f"the receipts cannot be used: {error}") from error
