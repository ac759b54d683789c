"""vLLM's executor for CPUs, whose processes wait for each other without taking a core from those that compute.

The engine's core and its worker talk over a queue in shared memory. vLLM 0.32 polls it without a pause for a second
after each message, and tells of each by ZeroMQ, whose threads carry it from process to process. Beside a GPU that costs
cores that nobody misses. On a CPU whoever polls, sends or is woken runs where the other computes: with an engine a
core, steps took half as long again (docs/decisions/0020). Here a word in shared memory counts the messages, and the
kernel wakes whoever waits for it to change (Linux' futex).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import weakref
from pathlib import Path
from typing import Any

from vllm.distributed.device_communicators import shm_broadcast
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
from vllm.v1.executor.multiproc_executor import MultiprocExecutor

SHARED_MEMORY = Path(shm_broadcast.SHM_PATH)
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine()) if platform.system() == "Linux" else None
"""The system call's number. Where there is none vLLM's processes wait as they come."""
_WAIT, _WAKE, _ALL = 0, 1, 2**31 - 1
_CALLED_OFF = 2**16
"""Added by a reader that is to wait no longer; its writer counts by one."""


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Bell:
    """A word that two processes share: one changes it, the other sleeps until it has changed.

    Whoever waits says which value it has seen, and the kernel compares before it lets anybody sleep: a change between a
    look at the queue and the sleep is never missed.
    """

    def __init__(self, name: str, *, create: bool) -> None:
        self._path: Path | None = SHARED_MEMORY / f"domicile-{name}"
        held = os.open(self._path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)
        try:
            if create:
                os.truncate(held, mmap.PAGESIZE)
            self._page = mmap.mmap(held, mmap.PAGESIZE)
        finally:
            os.close(held)
        self._word = ctypes.c_uint32.from_buffer(self._page)
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._at = ctypes.c_void_p(ctypes.addressof(self._word))

    @property
    def value(self) -> int:
        return self._word.value

    def ring(self, by: int = 1) -> None:
        """Change the word, and wake whoever waits for it."""
        self._word.value += by  # wraps around
        self._call(ctypes.c_long(_FUTEX or 0), self._at, _WAKE, _ALL, None, None, 0)

    def wait(self, seen: int, timeout_ms: int | None) -> None:
        """Sleep while the word is what was seen, no longer than ``timeout_ms``. A signal may end it sooner."""
        limit = None
        if timeout_ms is not None:
            limit = ctypes.byref(_Time(timeout_ms // 1000, timeout_ms % 1000 * 1_000_000))
        self._call(ctypes.c_long(_FUTEX or 0), self._at, _WAIT, ctypes.c_uint32(seen), limit, None, 0)

    def unname(self) -> None:
        """Everybody has it: from here on it needs no name, and so leaves nothing behind."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None


class Sleeping(SpinCondition):  # type: ignore[misc] # mypy does not follow vllm
    """Waits for a queue's next message asleep, where vLLM polls, and tells of one without ZeroMQ."""

    def __init__(self, is_reader: bool, context: Any, notify_address: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(is_reader, context, notify_address, *args, **kwargs)
        self._bell = Bell(Path(notify_address).name, create=not is_reader)
        self._seen = self._bell.value
        if not is_reader:
            # Where no message ever came.
            weakref.finalize(self, self._bell.unname)

    def wait(self, timeout_ms: int | None = None) -> None:
        """Return when there may be a message, or after ``timeout_ms`` at the latest."""
        self._bell.wait(self._seen, timeout_ms)
        self._seen = self._bell.value

    def notify(self) -> None:
        """A message is there. Its queue's readers are by now, too: vLLM waits for them before the first."""
        self._bell.unname()
        self._bell.ring()

    def cancel(self) -> None:
        """Have the reader look again, which ends, since its queue is shutting down.

        Should its writer write in the same moment this may be lost; vLLM has readers look again after five seconds.
        """
        if self.is_reader:
            self._bell.ring(_CALLED_OFF)


def sleep_while_waiting() -> None:
    """Queues that this process makes from now on are waited for asleep."""
    if _FUTEX is not None:
        shm_broadcast.SpinCondition = Sleeping


class SleepingExecutor(MultiprocExecutor):  # type: ignore[misc]
    """Given to vLLM as ``distributed_executor_backend``, which takes a class's name."""

    def _init_executor(self) -> None:
        sleep_while_waiting()
        super()._init_executor()
