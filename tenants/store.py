"""The port to where a country's organisations and keys are kept.

:mod:`tenants.sqlite_store` keeps them in one file of the country's own ground. What every implementation owes
is in ``tests/contract/test_store.py``.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from datetime import datetime
from typing import Protocol

from tenants.organisation import KeyRecord, Organisation


class StoreError(Exception):
    """The store cannot do what was asked."""


class AlreadyExists(StoreError):
    """There is one with that id."""


class NotFound(StoreError):
    """There is none with that id."""


class Store(Protocol):
    """Organisations and keys of one country. Every call is atomic and, once it returns, durable."""

    @property
    def country(self) -> str:
        """The only country whose records this store takes."""

    def version(self) -> Hashable:
        """A value that differs from an earlier one whenever anybody has committed in between. Fast."""

    def create_organisation(self, organisation: Organisation) -> None:
        """Raises :class:`AlreadyExists`."""

    def organisation(self, id: str) -> Organisation:
        """Raises :class:`NotFound`."""

    def list_organisations(self) -> Sequence[Organisation]:
        """All of them, by id."""

    def add_key(self, key: KeyRecord) -> None:
        """Raises :class:`NotFound` for its organisation, :class:`AlreadyExists` for its id."""

    def key(self, id: str) -> KeyRecord:
        """Raises :class:`NotFound`."""

    def list_keys(self, organisation: str | None = None) -> Sequence[KeyRecord]:
        """All of them, or one organisation's, oldest first. Raises :class:`NotFound` for the organisation."""

    def revoke_key(self, id: str, at: datetime) -> KeyRecord:
        """End a key; one that is revoked already keeps its time. Raises :class:`NotFound`."""

    def rotate_key(self, id: str, successor: KeyRecord, expires: datetime) -> KeyRecord:
        """Add ``successor`` and let the old key end at ``expires`` or before, both or neither.

        Returns the old key. Raises :class:`NotFound`, and :class:`StoreError` for a key that has ended already
        or belongs to another organisation than its successor.
        """

    def close(self) -> None:
        """Let go of what is held open."""
