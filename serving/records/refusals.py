"""Refusals on their way into the log, so that a storm of them is told and cannot fill the disk.

Of each sort (rule, reason, organisation) the first :data:`SINGLY` of a minute are recorded one by one. The others are
counted, and one record says how many there were. Rules and reasons are a few dozen and an organisation is named only
once its key was checked, so whoever has no key costs the disk a bounded number of lines a minute, whatever they send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from serving.records.errors import RecordsUnavailable
from serving.records.record import Kind, Record, Value

WINDOW_S = 60.0
SINGLY = 50

Sort = tuple[str, str, Value | None]


@dataclass(slots=True)
class _Told:
    """What this minute has brought of one sort."""

    singly: int = 0
    summed: int = 0
    last: dict[str, Value] = field(default_factory=dict)


class Refusals:
    """Notes refusals of one process. Lives in one event loop."""

    def __init__(self, note: Callable[[Record], None], clock: Callable[[], float] = monotonic) -> None:
        """
        Args:
            note: takes a record, or raises :class:`RecordsUnavailable`; then it is counted, and told when it can be.
        """
        self._note = note
        self._clock = clock
        self._ends = 0.0
        self._sorts: dict[Sort, _Told] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, request: str, rule: str, reason: str, **more: Value) -> None:
        """
        Args:
            request: its id.
            more: other fields of a refusal; ``organisation`` once it is known for certain.
        """
        if self._clock() >= self._ends:
            self.settle()
            self._ends = self._clock() + WINDOW_S
        told = self._sorts.setdefault((rule, reason, more.get("organisation")), _Told())
        fields: dict[str, Value] = {"request": request, "rule": rule, "reason": reason, **more}
        if told.singly < SINGLY and self._noted(fields):
            told.singly += 1
            return
        told.summed += 1
        told.last = fields
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WINDOW_S, self.settle)

    def settle(self) -> None:
        """Tell what was only counted, and begin anew. What cannot be told now is kept."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        kept = {}
        for sort, told in self._sorts.items():
            if told.summed and not self._noted({**told.last, "times": told.summed}):
                kept[sort] = _Told(0, told.summed, told.last)
        self._sorts = kept
        self._ends = 0.0

    def _noted(self, fields: dict[str, Value]) -> bool:
        try:
            self._note(Record(Kind.REFUSAL, fields))
        except RecordsUnavailable:
            return False
        return True
