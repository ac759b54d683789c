"""Files that only their owner reads, made whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class NotPrivate(Exception):
    """Others could have read or replaced the file, so it is not used."""


@contextmanager
def private_draft(path: Path) -> Iterator[Path]:
    """An empty file of mode 0600 to fill; it gets its name at the end, unless another has it by then.

    So nobody ever meets half a file, and of several writers the first to finish decides.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        yield draft
        _sync(draft)
        # Unlike a rename, a link never replaces the file that another process has put there.
        with suppress(FileExistsError):
            os.link(draft, path)
        _sync(path.parent)
    finally:
        draft.unlink()


def create_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, unless there is one already."""
    with private_draft(path) as draft:
        draft.write_bytes(content)


def read_private(path: Path, limit: int = 64 * 1024) -> bytes:
    """The file's content, ``limit`` bytes at most. Raises :class:`NotPrivate`, or :class:`OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotPrivate(f"{path} is not a regular file")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise NotPrivate(f"others may use {path}: make it private with chmod 600")
        if status.st_uid not in {0, os.geteuid()}:
            raise NotPrivate(f"{path} belongs to another user")
        return file.read(limit)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
