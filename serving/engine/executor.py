"""vLLM's executor for CPUs, whose processes wait for each other without taking a core from those that compute.

The engine's core and its worker talk over a queue in shared memory. vLLM 0.32 polls it without a pause for a second
after each message. Beside a GPU that costs cores that nobody misses. On a CPU the one that polls runs where the other
computes: with an engine a core, steps took half as long again (docs/decisions/0020).
"""

from __future__ import annotations

import time
from typing import Any

from vllm.distributed.device_communicators import shm_broadcast
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
from vllm.v1.executor.multiproc_executor import MultiprocExecutor

ACTIVE_S = 1.0
"""After a message another one is expected for so long, as vLLM has it..."""
RECHECK_MS = 1
"""...and is looked for this often. ZeroMQ drops a notification that comes within three million processor cycles of the
one before, so that whoever only waits for it waits for vLLM's own recheck, five seconds."""


class Sleeping(SpinCondition):  # type: ignore[misc] # mypy does not follow vllm
    """Waits for a queue's notification, as vLLM does after an idle second, instead of polling."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.busy_loop_s = 0.0

    def wait(self, timeout_ms: int | None = None) -> None:
        """Return when there may be a message, or after ``timeout_ms`` at the latest."""
        if time.monotonic() <= self.last_read + ACTIVE_S:
            timeout_ms = RECHECK_MS if timeout_ms is None else min(timeout_ms, RECHECK_MS)
        super().wait(timeout_ms)


def sleep_while_waiting() -> None:
    """Queues that this process makes from now on are waited for asleep."""
    shm_broadcast.SpinCondition = Sleeping


class SleepingExecutor(MultiprocExecutor):  # type: ignore[misc]
    """Given to vLLM as ``distributed_executor_backend``, which takes a class's name."""

    def _init_executor(self) -> None:
        sleep_while_waiting()
        super()._init_executor()
