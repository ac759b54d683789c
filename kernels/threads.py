"""How kernels on CPUs are compiled, and on which threads they run: torch's own."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from inspect import getsourcefile
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import torch

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

_one_at_a_time = threading.Lock()
"""Where there is no OpenMP library, numba's own threads end a process in which two others start work on them."""
_started = 0
"""How many threads numba has: 0 before any are asked for. OpenMP's do not live on in a forked child: it is left one."""


def compiled(function: F, **options: Any) -> F:
    """Compiled at its first call. Fast-math is off unless asked for: results are the same on every machine."""
    chosen = {"nogil": True, "error_model": "numpy", **options}
    try:
        dispatcher = numba.njit(cache=True, **chosen)(function)
    except RuntimeError:  # there is no folder that numba may write
        return cast(F, numba.njit(**chosen)(function))
    # What a function calls is compiled into it, and numba looks at its own file only to tell whether it has changed.
    index = dispatcher._cache._cache_file
    index._source_stamp = (index._source_stamp, _contents(Path(getsourcefile(function) or "").parent))
    return cast(F, dispatcher)


@cache
def _contents(folder: Path) -> str:
    """One value for all sources of a folder, which changes with any of them."""
    known = sha256()
    for source in sorted(folder.glob("*.py")):
        known.update(source.name.encode() + source.read_bytes())
    return known.hexdigest()


def threads(parts: int) -> int:
    """How many to use for work of so many parts, at most one each: as many as torch does otherwise.

    With torch's OpenMP library preloaded they are the same threads, on the cores given to it.
    """
    wanted: int = min(torch.get_num_threads(), _started or numba.config.NUMBA_NUM_THREADS, parts)
    if wanted > 1 and not _started:
        _start()
    return max(wanted, 1)


def _start() -> None:
    global _started
    numba.config.THREADING_LAYER_PRIORITY = ["omp", "workqueue", "tbb"]
    _started = numba.config.NUMBA_NUM_THREADS


def _forked() -> None:
    """Numba's layer ends a process that asks for its parent's threads."""
    global _started
    _started = min(_started, 1)


os.register_at_fork(after_in_child=_forked)


@numba.njit(nogil=True)  # type: ignore[untyped-decorator] # numba has no types
def _now() -> int:
    """How many are set to be used. Asked from compiled code, which numba answers without taking its locks."""
    return numba.get_num_threads()  # type: ignore[no-any-return]


class Launching:
    """While compiled code runs on so many threads, of which :func:`threads` has said that they are there."""

    __slots__ = ("_count",)

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> None:
        _one_at_a_time.acquire()
        try:
            # A step of an engine starts work a hundred times, and asking costs a fraction of setting.
            if _now() != self._count:
                numba.set_num_threads(self._count)
        except BaseException:  # asking starts the threads, where that fails
            _one_at_a_time.release()
            raise

    def __exit__(self, *_: object) -> None:
        _one_at_a_time.release()


def warn_of_few() -> None:
    """Say so where numba has fewer threads than torch."""
    if torch.get_num_threads() > numba.config.NUMBA_NUM_THREADS:
        # OpenMP may have pinned the thread that then imported numba, which takes its one core for all there are.
        log.warning(
            "numba has %d threads and torch %d: set NUMBA_NUM_THREADS before the process starts",
            numba.config.NUMBA_NUM_THREADS,
            torch.get_num_threads(),
        )
