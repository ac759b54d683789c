"""A priority queue whose items can be moved and removed, by a binary heap with lazy deletion.

A removed or moved item stays in the heap as a dead entry until it comes up, or until dead entries outnumber the
living: every operation is O(log n) amortised, and memory stays in proportion to what is alive.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

_SPARE = 64


class PriorityQueue(Generic[Item]):
    """Items by their key, least first, in the order in which they were put among equals."""

    __slots__ = ("_heap", "_live", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._live: dict[Item, int] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, item: Item) -> bool:
        return item in self._live

    def put(self, item: Item, key: float) -> None:
        """Adds an item, or moves it."""
        self._serial += 1
        self._live[item] = self._serial
        heappush(self._heap, (key, self._serial, item))
        if len(self._heap) > 2 * len(self._live) + _SPARE:
            self._compact()

    def discard(self, item: Item) -> None:
        """Removes an item if it is there."""
        self._live.pop(item, None)
        if len(self._heap) > 2 * len(self._live) + _SPARE:
            self._compact()

    def least(self) -> tuple[float, Item] | None:
        """The least key and its item; ``None`` where there is nothing."""
        heap, live = self._heap, self._live
        while heap:
            key, serial, item = heap[0]
            if live.get(item) == serial:
                return key, item
            heappop(heap)
        return None

    def pop(self) -> tuple[float, Item] | None:
        """Removes the least."""
        top = self.least()
        if top:
            heappop(self._heap)
            del self._live[top[1]]
        return top

    def _compact(self) -> None:
        self._heap = [entry for entry in self._heap if self._live.get(entry[2]) == entry[1]]
        heapify(self._heap)
