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

AT_ONCE_S = 0.004
"""ZeroMQ drops a notification that comes within three million processor cycles of the one before: about a millisecond.
So for as long as that may be, and some more, after a message..."""
AT_ONCE_MS = 1
"""...the next one is looked for this often. Whoever only waits for it waits for vLLM's own recheck, five seconds."""
ACTIVE_S = 1.0
"""Later, and for so long after a message, as vLLM has it..."""
ACTIVE_MS = 20
"""...this often, should one be dropped for another reason. Each look takes a core from a step that runs."""


class Sleeping(SpinCondition):  # type: ignore[misc] # mypy does not follow vllm
    """Waits for a queue's notification, as vLLM does after an idle second, instead of polling."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.busy_loop_s = 0.0

    def wait(self, timeout_ms: int | None = None) -> None:
        """Return when there may be a message, or after ``timeout_ms`` at the latest."""
        since_s = time.monotonic() - self.last_read
        if since_s <= ACTIVE_S:
            often_ms = AT_ONCE_MS if since_s <= AT_ONCE_S else ACTIVE_MS
            timeout_ms = often_ms if timeout_ms is None else min(timeout_ms, often_ms)
        super().wait(timeout_ms)


def sleep_while_waiting() -> None:
    """Queues that this process makes from now on are waited for asleep."""
    shm_broadcast.SpinCondition = Sleeping


class SleepingExecutor(MultiprocExecutor):  # type: ignore[misc]
    """Given to vLLM as ``distributed_executor_backend``, which takes a class's name."""

    def _init_executor(self) -> None:
        sleep_while_waiting()
        super()._init_executor()
