"""The port to where a country keeps its receipts.

:mod:`serving.records.sqlite_receipts` keeps them in one file of the country's own ground. What every implementation
owes is in ``tests/records/test_receipt_store.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serving.records.errors import RecordsUnavailable


class ReceiptNotFound(Exception):
    """The organisation has no such receipt."""


class ReceiptTaken(RecordsUnavailable):
    """Another receipt has that id already."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A receipt as it is kept: whose it is, and the signed token."""

    id: str
    organisation: str
    iat: int
    """Seconds since the epoch."""
    token: str


class ReceiptStore(Protocol):
    """Receipts of one country. Every call is atomic and, once it returns, durable."""

    @property
    def country(self) -> str:
        """The only country whose receipts this store takes."""

    def add(self, receipts: Sequence[Kept]) -> None:
        """Keep all or none. What is there already, the same to the last letter, is fine: a batch may be tried again.

        Raises :class:`ReceiptTaken` for an id that another receipt has, and :class:`RecordsUnavailable`.
        """

    def get(self, id: str, organisation: str) -> Kept:
        """Raises :class:`ReceiptNotFound`, also for a receipt of another organisation."""

    def drop_before(self, iat: int) -> int:
        """Forget receipts from before, and say how many."""

    def close(self) -> None:
        """Let go of what is held open."""
