"""The processes that ``up`` started, found again however they came to be orphans.

Everything that ``up`` starts inherits a mark in its environment, and children inherit it from their parents. A
process is ours when its environment holds our mark: no list to lose in a crash, no pattern over names to
hit somebody else's Ray.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "DOMICILE_MARK"


def mark(home: Path) -> str:
    """The mark of the processes whose state lives under ``home``."""
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:32]


def ours(home: Path) -> list[psutil.Process]:
    """Every living process with our mark, but for the one that asks and those above it."""
    wanted = mark(home)
    me = psutil.Process()
    spared = {me.pid, *(parent.pid for parent in me.parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in spared and process.environ().get(MARK) == wanted:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


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
