"""Records on their way into the log: one after another, each with the hash of the one before."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from serving.records.encoding import stamp
from serving.records.record import Kind, Record, digest, encode
from serving.records.signing import Signer
from serving.records.statements import Checkpoint, Head


class Written(NamedTuple):
    """Where a record stands: its number, and the hash of the line before it."""

    seq: int
    prev: str


class Batch:
    """Lines that follow on a head, all of one moment."""

    def __init__(self, head: Head, now: int, signer: Signer) -> None:
        self._before = head
        self._now = now
        self._signer = signer
        self._stamp = stamp(now)
        self._stepped = max(0, head.time - now)
        self._seq, self._hash = head.seq, head.hash
        self._checkpoint, self._checkpointed = head.checkpoint, head.checkpointed
        self._lines: list[bytes] = []

    @property
    def unchecked(self) -> int:
        """How many records came since the last checkpoint."""
        return self._seq - self._checkpoint

    def add(self, record: Record) -> Written:
        written = Written(self._seq + 1, self._hash)
        line = encode(written.seq, self._stamp, record, written.prev, self._stepped)
        self._stepped = 0
        self._lines.append(line)
        self._seq, self._hash = written.seq, digest(line)
        return written

    def checkpoint(self) -> None:
        statement = Checkpoint(self._before.country, self._seq, self._hash, self._now).seal(self._signer)
        self._checkpoint = self.add(Record(Kind.CHECKPOINT, {"statement": statement})).seq
        self._checkpointed = self._now

    def done(self) -> tuple[bytes, Head]:
        """The lines, and the head that they lead to, which knows nothing of segments yet."""
        reached = replace(
            self._before,
            seq=self._seq,
            hash=self._hash,
            time=self._now,
            checkpoint=self._checkpoint,
            checkpointed=self._checkpointed,
        )
        return b"".join(self._lines), reached
