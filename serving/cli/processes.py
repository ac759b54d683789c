"""The processes that ``up`` started, found again however they came to be orphans.

Everything that ``up`` starts inherits a mark in its environment, and children inherit it from their parents. A
process is ours when its environment holds our mark: no list to lose in a crash, no pattern over names to
hit somebody else's Ray. Ray's agents wipe their environment when they write a title over it; those are found by the
logs below our folder that they hold open.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "DOMICILE_MARK"


def mark(home: Path) -> str:
    """The mark of the processes whose state lives under ``home``."""
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:32]


def temporary(home: Path) -> Path:
    """Where Ray keeps the sessions of a home. Short: the paths of Unix sockets below it may have 107 bytes."""
    name = hashlib.sha256(str(home).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"domicile-{name}"


def ours(home: Path) -> list[psutil.Process]:
    """Every living process of ours, but for the one that asks and those above it."""
    wanted, sessions = mark(home), f"{temporary(home)}{os.sep}"
    me = psutil.Process()
    spared = {me.pid, *(parent.pid for parent in me.parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in spared and (process.environ().get(MARK) == wanted or _logs_to(process, sessions)):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def _logs_to(process: psutil.Process, sessions: str) -> bool:
    # Only what goes by a name of Ray's is looked into: reading everybody's open files would take long.
    title = (process.cmdline() or [""])[0]
    return title.startswith("ray::") and any(file.path.startswith(sessions) for file in process.open_files())


def end(processes: list[psutil.Process], grace_s: float) -> int:
    """Ask to end, wait, then kill. Returns how many were there."""
    for process in processes:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        _signal(process.kill)
    psutil.wait_procs(alive, timeout=grace_s)
    return len(processes)


def _signal(send: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        send()
