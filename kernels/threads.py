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
_launched_in: int | None = None


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
    global _launched_in
    wanted: int = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS, parts)
    # OpenMP's threads do not live on in a forked child, and numba's layer ends a process that asks for them there.
    if wanted <= 1 or _launched_in not in (None, os.getpid()):
        return 1
    if _launched_in is None:
        _launched_in = os.getpid()
        numba.config.THREADING_LAYER_PRIORITY = ["omp", "workqueue", "tbb"]
    return wanted


class Launching:
    """While compiled code runs on so many threads, of which :func:`threads` has said that they are there."""

    __slots__ = ("_count",)

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> None:
        _one_at_a_time.acquire()
        try:
            # A step of an engine starts work a hundred times, and asking is half as dear as setting.
            if numba.get_num_threads() != self._count:
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
