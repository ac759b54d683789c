"""The store in one SQLite file. Readers never wait for the writer (WAL), and writers wait for each other."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from tenants.organisation import KeyRecord, Organisation, Plan
from tenants.private import private_draft
from tenants.store import AlreadyExists, NotFound, StoreError

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 5.0

_SCHEMA = (
    "CREATE TABLE home (country TEXT NOT NULL)",
    """CREATE TABLE organisations (
        id TEXT PRIMARY KEY, plan TEXT NOT NULL, models TEXT, created INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        organisation TEXT NOT NULL REFERENCES organisations (id),
        digest BLOB NOT NULL CHECK (length(digest) = 32),
        created INTEGER NOT NULL, expires INTEGER, revoked INTEGER
    ) WITHOUT ROWID""",
    "CREATE INDEX keys_by_organisation ON keys (organisation)",
)
_ORGANISATION = "SELECT id, plan, models, created FROM organisations"
_KEY = "SELECT id, organisation, digest, created, expires, revoked FROM keys"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SqliteStore:
    """A :class:`~tenants.store.Store`. Opened with :meth:`open`; may be shared between threads."""

    def __init__(self, connection: sqlite3.Connection, country: str) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._country = country

    @classmethod
    def open(cls, path: Path, country: str) -> Self:
        """Open or create the file. Raises :class:`StoreError` for one of another country or a later release."""
        with _translated():
            if not path.exists():
                _create(path, country)
            # By name: closing a descriptor of the file would drop the locks of this process's connections.
            # SQLite gives its -wal and -shm files the same mode.
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

    def version(self) -> Hashable:
        # Asked for on every request: hence no context manager beside the lock.
        with self._lock:
            try:
                (others,) = self._connection.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error as error:
                raise StoreError(f"the store cannot be used: {error}") from error
            # data_version leaves out this connection's own commits.
            return others, self._connection.total_changes

    def create_organisation(self, organisation: Organisation) -> None:
        self._require_own(organisation.country)
        models = None if organisation.models is None else json.dumps(sorted(organisation.models))
        row = (organisation.id, organisation.plan.value, models, _ticks(organisation.created))
        with self._transaction(AlreadyExists(f"organisation '{organisation.id}' exists already")):
            self._connection.execute("INSERT INTO organisations VALUES (?, ?, ?, ?)", row)

    def organisation(self, id: str) -> Organisation:
        with self._lock, _translated():
            row = self._connection.execute(f"{_ORGANISATION} WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise NotFound(f"there is no organisation '{id}'")
        return self._to_organisation(*row)

    def list_organisations(self) -> Sequence[Organisation]:
        with self._lock, _translated():
            rows = self._connection.execute(f"{_ORGANISATION} ORDER BY id").fetchall()
        return [self._to_organisation(*row) for row in rows]

    def add_key(self, key: KeyRecord) -> None:
        self._require_own(key.country)
        with self._transaction(AlreadyExists(f"key '{key.id}' exists already")):
            self.organisation(key.organisation)
            self._insert(key)

    def key(self, id: str) -> KeyRecord:
        with self._lock, _translated():
            row = self._connection.execute(f"{_KEY} WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise NotFound(f"there is no key '{id}'")
        return self._to_key(*row)

    def list_keys(self, organisation: str | None = None) -> Sequence[KeyRecord]:
        with self._lock, _translated():
            if organisation is None:
                rows = self._connection.execute(f"{_KEY} ORDER BY created, id").fetchall()
            else:
                self.organisation(organisation)
                query = f"{_KEY} WHERE organisation = ? ORDER BY created, id"
                rows = self._connection.execute(query, (organisation,)).fetchall()
        return [self._to_key(*row) for row in rows]

    def revoke_key(self, id: str, at: datetime) -> KeyRecord:
        with self._transaction():
            self._connection.execute("UPDATE keys SET revoked = coalesce(revoked, ?) WHERE id = ?", (_ticks(at), id))
            return self.key(id)

    def rotate_key(self, id: str, successor: KeyRecord, expires: datetime) -> KeyRecord:
        self._require_own(successor.country)
        with self._transaction(AlreadyExists(f"key '{successor.id}' exists already")):
            old = self.key(id)
            if not old.valid(successor.created):
                raise StoreError(f"key '{id}' has ended already: make a new one")
            if old.organisation != successor.organisation:
                raise StoreError(f"key '{id}' belongs to another organisation than its successor")
            self._insert(successor)
            self._connection.execute(
                "UPDATE keys SET expires = min(coalesce(expires, ?1), ?1) WHERE id = ?2", (_ticks(expires), id)
            )
            return self.key(id)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_own_file(self, path: Path) -> None:
        with _translated():
            (schema,) = self._connection.execute("PRAGMA user_version").fetchone()
            if schema != SCHEMA_VERSION:
                raise StoreError(f"{path} has schema {schema}, this release knows {SCHEMA_VERSION}")
            (owner,) = self._connection.execute("SELECT country FROM home").fetchone()
        if owner != self._country:
            raise StoreError(f"{path} belongs to {owner}, not to {self._country}")

    @contextmanager
    def _transaction(self, duplicate: StoreError | None = None) -> Iterator[None]:
        """All or nothing; ``duplicate`` is raised when a row with the same id is there."""
        with self._lock, _translated(duplicate):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _require_own(self, country: str) -> None:
        if country != self._country:
            raise StoreError(f"a record of {country} has no place in the store of {self._country}")

    def _insert(self, key: KeyRecord) -> None:
        times = (_ticks(key.created), _ticks(key.expires), _ticks(key.revoked))
        self._connection.execute(
            "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?)", (key.id, key.organisation, key.digest, *times)
        )

    def _to_organisation(self, id: str, plan: str, models: str | None, created: int) -> Organisation:
        granted = None if models is None else frozenset(json.loads(models))
        return Organisation(self._country, id, Plan(plan), granted, _EPOCH + created * _MICROSECOND)

    def _to_key(
        self, id: str, organisation: str, digest: bytes, created: int, expires: int | None, revoked: int | None
    ) -> KeyRecord:
        return KeyRecord(
            id,
            self._country,
            organisation,
            digest,
            created=_EPOCH + created * _MICROSECOND,
            expires=None if expires is None else _EPOCH + expires * _MICROSECOND,
            revoked=None if revoked is None else _EPOCH + revoked * _MICROSECOND,
        )


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _create(path: Path, country: str) -> None:
    # Made aside and named when complete: switching to WAL does not wait for others who do the same.
    with private_draft(path) as draft, closing(_connect(draft)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO home VALUES (?)", (country,))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextmanager
def _translated(duplicate: StoreError | None = None) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise duplicate or StoreError(f"the store refused the record: {error}") from error
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"the store cannot be used: {error}") from error


def _ticks(moment: datetime | None) -> int | None:
    """Whole microseconds since 1970, which keep a time exactly where a float would not."""
    return None if moment is None else (moment - _EPOCH) // _MICROSECOND
