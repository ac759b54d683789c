"""The audit log of one country: append-only, each record naming the hash of the one before, anchored by signatures.

Several processes write to one folder. Who appends holds the folder's lock, begins where the signed head says that the
log ends, and moves the head when the lines are on disk: what :meth:`AuditLog.append` has returned for is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from serving.records.batch import Batch, Written
from serving.records.errors import RecordsUnavailable, Rejected
from serving.records.folder import Folder
from serving.records.record import OWN, Kind, Record
from serving.records.recovery import recover, untouched
from serving.records.removal import expired
from serving.records.signing import KeyRing, Signer
from serving.records.statements import Head, Removal


@dataclass(frozen=True, slots=True)
class Limits:
    """When the log does what it does by itself."""

    segment_bytes: int = 64 * 1024 * 1024
    segment_s: float = 24 * 3600.0
    """After so many bytes, or seconds, records go to a new segment."""
    checkpoint_records: int = 1000
    checkpoint_s: float = 60.0
    """After so many records, or seconds, the next batch ends with a checkpoint."""
    durable: bool = True
    """Whether a batch outlasts a power failure. Else one may leave a log that is shorter than its head, and refused."""


def wall_clock() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class AuditLog:
    """One writer of a country's log. May be shared between threads; other processes have their own.

    Every call raises :class:`RecordsUnavailable` where it cannot write, and then has written nothing.
    """

    def __init__(
        self,
        directory: Path,
        country: str,
        keys: KeyRing,
        limits: Limits | None = None,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        """Opens the log, makes it where there is none, and mends what a crash left."""
        self._folder = Folder(directory)
        self._country = country
        self._keys = keys
        self._limits = limits or Limits()
        self._clock = clock
        self._known: tuple[str, Head] | None = None
        self._folder.make()
        with self._at_the_end():
            pass

    def append(self, records: Sequence[Record]) -> list[Written]:
        """Add records, all or none, and say where each stands.

        Raises:
            ValueError: a kind that only the log itself writes.
        """
        if any(record.kind in OWN for record in records):
            raise ValueError("checkpoints, removals and recoveries are the log's own")
        if not records:
            return []
        with self._at_the_end() as head:
            return self._extend(head, records)

    def checkpoint(self) -> None:
        """Sign the log as it is, unless it was signed since its last record."""
        with self._at_the_end() as head:
            if head.seq > head.checkpoint:
                self._extend(head, [], sign=True)

    def retain(self, days: int) -> int:
        """Remove whole segments whose last record is older than ``days``, and say in a signed record which.

        Returns how many segments went. The last segment stays, whatever its age. Raises ``ValueError`` for no days.
        """
        if days < 1:
            raise ValueError("records are kept for a day at least")
        with self._at_the_end() as head:
            now = self._clock()
            old, end = expired(self._folder, head, now - days * 86_400_000)
            if end is not None:
                statement = Removal(self._country, *end, now).seal(self._keys.current())
                self._extend(head, [Record(Kind.REMOVAL, {"statement": statement})])
                self._folder.remove(old)
            return len(old)

    def close(self) -> None:
        """Leave the log with a checkpoint."""
        self.checkpoint()

    @contextmanager
    def _at_the_end(self) -> Iterator[Head]:
        """The head to follow on, held against all other writers."""
        with self._folder.locked():
            head = self._head()
            if not untouched(self._folder, head):
                head, told = recover(self._folder, head)
                if told is not None:
                    self._extend(head, [told])
                    head = self._head()
            yield head

    def _head(self) -> Head:
        token = self._folder.head()
        if self._known is not None and self._known[0] == token:
            return self._known[1]
        if token is None:
            return self._begun()
        try:
            head = Head.open(token, self._keys.public(), self._country)
        except Rejected as error:
            raise RecordsUnavailable(f"the head of {self._folder.directory} cannot be trusted: {error}") from error
        self._known = token, head
        return head

    def _begun(self) -> Head:
        if self._known is not None or self._folder.segments():
            raise RecordsUnavailable(f"{self._folder.directory} has lost its head: keep the folder as evidence")
        return self._moved(Head.of_nothing(self._country, self._clock()), self._keys.current())

    def _extend(self, head: Head, records: Sequence[Record], *, sign: bool = False) -> list[Written]:
        now, signer, limits = self._clock(), self._keys.current(), self._limits
        batch, written = Batch(head, now, signer), []
        for record in records:
            written.append(batch.add(record))
            if batch.unchecked >= limits.checkpoint_records:
                batch.checkpoint()
        if sign or (batch.unchecked and abs(now - head.checkpointed) >= limits.checkpoint_s * 1000):
            batch.checkpoint()
        lines, reached = batch.done()
        first, size, since = self._segment(head, now)
        self._folder.append(first, size, lines, durable=limits.durable)
        with self._folder.undone(first, size):
            self._moved(replace(reached, first=first, size=size + len(lines), since=since), signer)
        return written

    def _moved(self, head: Head, signer: Signer) -> Head:
        token = head.seal(signer)
        self._folder.replace_head(token)
        self._known = token, head
        return head

    def _segment(self, head: Head, now: int) -> tuple[int, int, int]:
        """First record, size and begin of the segment that the next lines go to."""
        if not head.size:
            return head.first, 0, now
        if head.size >= self._limits.segment_bytes or now - head.since >= self._limits.segment_s * 1000:
            return head.seq + 1, 0, now
        return head.first, head.size, head.since
