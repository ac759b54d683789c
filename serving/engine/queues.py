"""vLLM's queues in shared memory. Requests pass through them, and their names outlive who is killed (R7)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

_NAMED = "/dev/shm/psm_"  # noqa: S108 - how Python names shared memory; nothing is made there


def unname() -> int:
    """Take the names from the queues that this process and its children have mapped. Returns how many there were.

    Once all of them are attached nobody needs a name any more, and memory without one ends with whoever holds it.
    """
    me = psutil.Process()
    names = {name for process in (me, *me.children(recursive=True)) for name in _mapped(process.pid)}
    for name in names:
        Path(name).unlink(missing_ok=True)
    return len(names)


def _mapped(pid: int) -> list[str]:
    with suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        return [line.split(maxsplit=5)[5] for line in lines if _NAMED in line and not line.endswith("(deleted)")]
    return []
