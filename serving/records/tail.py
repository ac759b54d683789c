"""The newest records, without a look at whether they are what was written."""

from __future__ import annotations

from pathlib import Path

from serving.records.folder import Folder
from serving.records.record import Kind, Line, decode


def tail(directory: Path, count: int) -> list[bytes]:
    """The last ``count`` lines of a log, oldest first. Raises :class:`~serving.records.errors.RecordsUnavailable`."""
    folder, lines = Folder(directory), list[bytes]()
    for first in reversed(folder.segments()):
        if len(lines) >= count:
            break
        # A line that is being written has no end yet.
        whole, _, _ = folder.read(first).rpartition(b"\n")
        lines = [*whole.splitlines(keepends=True), *lines][-count:]
    return [line if line.endswith(b"\n") else line + b"\n" for line in lines]


def latest(directory: Path, kind: Kind) -> Line | None:
    """The newest record of a kind, likewise unexamined."""
    folder, marker = Folder(directory), f'"kind":"{kind}"'.encode()
    for first in reversed(folder.segments()):
        content = folder.read(first)
        at = content.rfind(marker)
        while at >= 0:
            begin, end = content.rfind(b"\n", 0, at) + 1, content.find(b"\n", at) + 1
            line = decode(content[begin:end]) if end else None
            if line is not None and line.kind == kind:
                return line
            at = content.rfind(marker, 0, at)
    return None
