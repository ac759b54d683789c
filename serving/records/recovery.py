"""What a writer that died left behind the head: whole lines are taken up, the rest put aside, and a record says so."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from serving.records.encoding import milliseconds
from serving.records.errors import RecordsUnavailable
from serving.records.folder import Folder, segment_name
from serving.records.record import Kind, Record, decode, digest
from serving.records.statements import Head


def untouched(folder: Folder, head: Head) -> bool:
    """Whether the log ends where its head says. Three looks at the folder, since every batch asks."""
    return (
        folder.size(head.first) == head.size
        and (head.first == head.seq + 1 or not folder.has(head.seq + 1))
        and folder.torn(head.seq + 1) is None
    )


def recover(folder: Folder, head: Head) -> tuple[Head, Record | None]:
    """Bring the log to where the next record can follow. Under the lock.

    Returns the head that the lines lead to, and the record that tells of it, ``None`` where there is nothing to tell.

    Raises:
        RecordsUnavailable: the log is shorter than its head says. That is no crash, and nothing is written over it.
    """
    if folder.size(head.first) < head.size:
        raise RecordsUnavailable(
            f"{segment_name(head.first)} is shorter than its signed head says: run domicile audit verify, and keep the "
            f"folder {folder.directory} as evidence"
        )
    reached = head
    while True:
        lines = folder.read(reached.first, reached.size) if folder.size(reached.first) > reached.size else b""
        reached, rest = _follow(reached, lines)
        if rest:
            folder.put_aside(reached.seq + 1, rest)
            folder.cut(reached.first, reached.size)
        if rest or reached.first == reached.seq + 1 or not folder.has(reached.seq + 1):
            break
        reached = replace(reached, first=reached.seq + 1, size=0, since=reached.time)
    return reached, _told(folder, reached, adopted=reached.seq - head.seq)


def _follow(head: Head, lines: bytes) -> tuple[Head, bytes]:
    """The head after all lines that follow on it, and what comes after those."""
    begin = 0
    while end := lines.find(b"\n", begin) + 1:
        raw = lines[begin:end]
        line = decode(raw)
        if line is None or (line.seq, line.prev) != (head.seq + 1, head.hash):
            break
        size, time = head.size + len(raw), milliseconds(line.time)
        head = replace(head, seq=line.seq, hash=digest(raw), size=size, time=time)
        begin = end
    return head, lines[begin:]


def _told(folder: Folder, head: Head, adopted: int) -> Record | None:
    # From the file rather than from memory: a crash may have come between putting aside and telling.
    torn = folder.torn(head.seq + 1) or b""
    if not adopted and not torn:
        return None
    found = {"torn_digest": f"sha256:{sha256(torn).hexdigest()}"} if torn else {}
    return Record(Kind.RECOVERY, {"adopted": adopted, "torn_bytes": len(torn), **found})
