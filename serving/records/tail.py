"""The newest records, without a look at whether they are what was written."""

from __future__ import annotations

from pathlib import Path

from serving.records.folder import Folder


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
