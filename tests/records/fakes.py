"""What stands in for the parts of the records room in tests."""

from __future__ import annotations

from collections.abc import Sequence

from serving.records.errors import RecordsUnavailable
from serving.records.receipt_store import Kept, ReceiptNotFound, ReceiptTaken


class MemoryReceipts:
    """A :class:`~serving.records.receipt_store.ReceiptStore` in a dict; what shares the dict shares the store."""

    def __init__(self, kept: dict[str, Kept] | None = None) -> None:
        self.kept = {} if kept is None else kept
        self.failing = self.closed = False

    @property
    def country(self) -> str:
        return "ee"

    def add(self, receipts: Sequence[Kept]) -> None:
        if self.failing:
            raise RecordsUnavailable("the disk is full")
        for receipt in receipts:
            if self.kept.get(receipt.id, receipt) != receipt:
                raise ReceiptTaken(f"receipt {receipt.id} exists already")
        self.kept.update((receipt.id, receipt) for receipt in receipts)

    def get(self, id: str, organisation: str) -> Kept:
        kept = self.kept.get(id)
        if kept is None or kept.organisation != organisation:
            raise ReceiptNotFound
        return kept

    def drop_before(self, iat: int) -> int:
        old = [id for id, kept in self.kept.items() if kept.iat < iat]
        for id in old:
            del self.kept[id]
        return len(old)

    def close(self) -> None:
        self.closed = True
