"""Which segments have been kept long enough."""

from __future__ import annotations

from serving.records.encoding import stamp
from serving.records.errors import RecordsUnavailable
from serving.records.folder import Folder, segment_name
from serving.records.record import decode, digest
from serving.records.statements import Head

TAIL_BYTES = 64 * 1024
"""Longer than any line."""


def expired(folder: Folder, head: Head, before: int) -> tuple[list[int], tuple[int, str] | None]:
    """The oldest segments whose last record is from ``before``, milliseconds since the epoch; never the log's last.

    With them the number and the hash of the last record that goes, ``None`` where none does.

    Raises:
        RecordsUnavailable: a segment does not end with a record, so nobody can say how old it is.
    """
    old: list[int] = []
    end: tuple[int, str] | None = None
    for first in folder.segments():
        if first == head.first:
            break
        raw = folder.read(first, max(0, folder.size(first) - TAIL_BYTES)).splitlines(keepends=True)[-1:]
        line = decode(raw[0]) if raw else None
        if line is None:
            raise RecordsUnavailable(f"{segment_name(first)} does not end with a record: run domicile audit verify")
        if line.time >= stamp(before):
            break
        old.append(first)
        end = line.seq, digest(raw[0])
    return old, end
