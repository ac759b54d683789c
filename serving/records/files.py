"""Files that several processes of a country share: replaced whole, and changed by one at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 5.0
"""How long a lock is waited for. Who holds one writes a batch, so a longer wait means that it has stopped."""
POLL_S = 0.001


def make_private(directory: Path) -> None:
    """Make a folder and all above it that are missing, for their owner alone whatever the umask."""
    for folder in (*reversed(directory.parents), directory):
        folder.mkdir(mode=0o700, exist_ok=True)


def sync(path: Path) -> None:
    """Let a file, or a folder's list of files, outlast a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """``os.write`` may stop short, at a quota or a signal."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def replace(path: Path, content: bytes) -> None:
    """Give the file this content, mode 0600, for everybody at once. One writer at a time: the draft has a fixed name.

    The name is not synced: after a power failure the file is whole, and as it was before or after.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold an advisory lock on a file or folder, which ends with the process that holds it.

    Raises ``TimeoutError`` after :data:`PATIENCE_S`, and other ``OSError``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _acquire(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, path)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, kind: int, path: Path) -> None:
    ends = time.monotonic() + PATIENCE_S
    while True:
        try:
            return fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > ends:
                raise TimeoutError(0, f"another process has held it for {PATIENCE_S:g} s", str(path)) from None
        time.sleep(POLL_S)
