"""The background writer: what is noted on the event loop is in the audit log, signed and kept a moment later.

Nobody waits for it. Where it cannot write, :attr:`Recorder.healthy` is false and the gateway lets nothing new in; what
was noted is kept and tried again until it is written.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass

from serving.records.audit import AuditLog
from serving.records.batch import Written
from serving.records.errors import RecordsUnavailable
from serving.records.receipt_store import Kept, ReceiptStore
from serving.records.receipts import Answered, issue
from serving.records.record import Record
from serving.records.signing import KeyRing

log = logging.getLogger(__name__)

GATHER_S = 0.05
"""How long the first of a batch waits for others."""
BATCH = 256
FULL = 8192
"""From so many entries on nothing new should be let in."""
RESERVE = 8192
"""Beyond that there is room for what was let in before."""
PAUSES_S = (0.1, 0.5, 2.0)
"""Between one try of a batch and the next; the last one again and again."""


@dataclass(frozen=True, slots=True)
class _Entry:
    record: Record
    answered: Answered | None


class Recorder:
    """Writes to one country's log and receipts from a thread of its own, which ends with :meth:`close`."""

    def __init__(self, audit: AuditLog, keys: KeyRing, receipts: ReceiptStore) -> None:
        """Takes over ``audit`` and ``receipts``, and closes them."""
        self._audit = audit
        self._keys = keys
        self._receipts = receipts
        self._entries: deque[_Entry] = deque()
        self._noted = self._written = 0
        self._changed = threading.Condition()
        self._something = threading.Event()
        self._enough = threading.Event()
        self._closing = threading.Event()
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether everything noted so far was written, or is about to be."""
        return self._failure is None and self.waiting < FULL and self._thread.is_alive()

    @property
    def failure(self) -> str | None:
        """Why the last try failed; ``None`` when it did not."""
        return self._failure

    @property
    def waiting(self) -> int:
        """Entries noted and not written."""
        return self._noted - self._written

    def note(self, entry: Record | Answered) -> None:
        """Record this, and sign a receipt for an answer. Takes microseconds and waits for nothing.

        Raises:
            ValueError: it holds something that no record may hold.
            RecordsUnavailable: there is no room, or the recorder was closed.
        """
        made = _Entry(entry, None) if isinstance(entry, Record) else _Entry(entry.record(), entry)
        with self._changed:
            if self._closing.is_set() or self.waiting >= FULL + RESERVE:
                raise RecordsUnavailable("the recorder is closed" if self._closing.is_set() else "the recorder is full")
            self._entries.append(made)
            self._noted += 1
            count = len(self._entries)
        if count == 1:
            self._something.set()
        if count == BATCH:
            self._enough.set()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything noted before is written. ``False`` when it is not by then."""
        upto = self._noted
        with self._changed:
            self._enough.set()
            return self._changed.wait_for(lambda: self._written >= upto, timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Write what is there and stop. ``False`` when something could not be written by then, and is lost."""
        self._closing.set()
        self._enough.set()
        self._something.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self._receipts.close()
        return self.waiting == 0

    def _run(self) -> None:
        while not (self._closing.is_set() and not self._entries):
            self._something.wait()
            self._enough.wait(GATHER_S)
            batch = self._taken()
            if batch:
                self._write(batch)
        try:
            self._audit.close()
        except RecordsUnavailable as error:
            log.error("the audit log was left without a checkpoint: %s", error)

    def _taken(self) -> list[_Entry]:
        with self._changed:
            batch = [self._entries.popleft() for _ in range(min(BATCH, len(self._entries)))]
            if not self._closing.is_set():
                if len(self._entries) < BATCH:
                    self._enough.clear()
                if not self._entries:
                    self._something.clear()
        return batch

    def _write(self, batch: list[_Entry]) -> None:
        """Log, sign, keep, in this order, and again from where it failed."""
        written: list[Written] = []
        kept: list[Kept] = []
        tries = 0
        while True:
            try:
                written = written or self._audit.append([entry.record for entry in batch])
                kept = kept or self._signed(batch, written)
                self._receipts.add(kept)
                break
            except Exception as error:
                # Whatever it is, nothing is served that is not recorded: healthy says so, and the thread lives on.
                known = isinstance(error, RecordsUnavailable)
                self._failure = str(error) if known else type(error).__name__
                if not tries:
                    log.error("records cannot be written, %s wait: %s", self.waiting, self._failure)
            time.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
            tries += 1
        self._failure = None
        with self._changed:
            self._written += len(batch)
            self._changed.notify_all()

    def _signed(self, batch: list[_Entry], written: list[Written]) -> list[Kept]:
        signer, country, iat = self._keys.current(), self._receipts.country, int(time.time())
        return [
            Kept(each.receipt, each.organisation, iat, issue(each, country, at, signer, iat))
            for each, at in zip((entry.answered for entry in batch), written, strict=True)
            if each is not None
        ]
