"""The audit log's folder: its segments, its head, and the lock that its writers share.

Every ``OSError`` leaves here as :class:`~serving.records.errors.RecordsUnavailable`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from serving.records.errors import RecordsUnavailable
from serving.records.files import locked, make_private, replace, sync, write_all

HEAD = "head.jws"
LOCK = "lock"


def segment_name(first: int) -> str:
    """A segment has the name of its first record, so that names sort as records do."""
    return f"audit-{first:012}.jsonl"


class Folder:
    """Where the segments are. Files are 0600 and the folder 0700, whatever the umask."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def make(self) -> None:
        """Make the folder and its lock, unless they are there."""
        with self._translated():
            make_private(self.directory)
            os.close(os.open(self.directory / LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    @contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[None]:
        with self._translated(), locked(self.directory / LOCK, shared=shared):
            yield

    def segments(self) -> list[int]:
        """The first records of all segments, in order."""
        with self._translated():
            names = (path.stem.removeprefix("audit-") for path in self.directory.glob("audit-*.jsonl"))
            return sorted(int(name) for name in names if len(name) == 12 and name.isascii() and name.isdigit())

    def path(self, first: int) -> Path:
        return self.directory / segment_name(first)

    def has(self, first: int) -> bool:
        with self._translated():
            return self.path(first).exists()

    def size(self, first: int) -> int:
        """Bytes of a segment; one that is not there has none."""
        with self._translated(), suppress(FileNotFoundError):
            return self.path(first).stat().st_size
        return 0

    def read(self, first: int, begin: int = 0) -> bytes:
        with self._translated(), self.path(first).open("rb") as file:
            file.seek(begin)
            return file.read()

    def append(self, first: int, size: int, lines: bytes, *, durable: bool) -> None:
        """Add lines to a segment of ``size`` bytes, all of them or none."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._translated(), self.undone(first, size):
            descriptor = os.open(self.path(first), flags, 0o600)
            try:
                write_all(descriptor, lines)
                if durable:
                    os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            if not size:
                sync(self.directory)

    @contextmanager
    def undone(self, first: int, size: int) -> Iterator[None]:
        """What fails inside leaves a segment as long as it was."""
        try:
            yield
        except BaseException:
            # Where not even this works, the next writer finds the rest beyond the head and says so in a record.
            with suppress(RecordsUnavailable):
                self.cut(first, size)
            raise

    def cut(self, first: int, size: int) -> None:
        """Take away what a segment has beyond ``size`` bytes, and all of one that has none."""
        with self._translated(), suppress(FileNotFoundError):
            if size:
                os.truncate(self.path(first), size)
            else:
                self.path(first).unlink()

    def head(self) -> str | None:
        """The signed head, unread; ``None`` where there is none."""
        with self._translated(), suppress(FileNotFoundError):
            return (self.directory / HEAD).read_text("ascii", "replace").rstrip("\n")
        return None

    def replace_head(self, token: str) -> None:
        with self._translated():
            replace(self.directory / HEAD, token.encode() + b"\n")

    def torn(self, seq: int) -> bytes | None:
        """What was put aside since it stood where record ``seq`` belongs; ``None`` where nothing was."""
        with self._translated(), suppress(FileNotFoundError):
            return self._torn(seq).read_bytes()
        return None

    def put_aside(self, seq: int, content: bytes) -> None:
        with self._translated():
            replace(self._torn(seq), content)
            sync(self.directory)

    def remove(self, firsts: list[int]) -> None:
        """Remove segments, the oldest first: what is left has no gap, also after a crash."""
        with self._translated():
            for first in sorted(firsts):
                self.path(first).unlink(missing_ok=True)
                sync(self.directory)

    def _torn(self, seq: int) -> Path:
        return self.directory / f"torn-{seq:012}"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RecordsUnavailable(f"cannot write records to {self.directory}: {error.strerror}") from error
