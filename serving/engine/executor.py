"""vLLM's executor for CPUs, whose processes wait for each other without taking a core from those that compute.

The engine's core and its worker talk over a queue in shared memory. vLLM 0.32 polls it without a pause for a second
after each message. Beside a GPU that costs cores that nobody misses. On a CPU the one that polls runs where the other
computes: with an engine a core, steps took 1.7 times as long (docs/decisions/0020).
"""

from __future__ import annotations

from typing import Any

from vllm.distributed.device_communicators import shm_broadcast
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
from vllm.v1.executor.multiproc_executor import MultiprocExecutor

POLLED_READS = 16
"""Messages before it sleeps: those of the start, when a notification may come before anybody listens."""


class Sleeping(SpinCondition):  # type: ignore[misc] # mypy does not follow vllm
    """Waits for a queue's notification, as vLLM does after an idle second, instead of polling."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reads = 0

    def record_read(self) -> None:
        super().record_read()
        self._reads += 1
        if self._reads == POLLED_READS:
            self.busy_loop_s = 0.0


def sleep_while_waiting() -> None:
    """Queues that this process makes from now on are waited for asleep."""
    shm_broadcast.SpinCondition = Sleeping


class SleepingExecutor(MultiprocExecutor):  # type: ignore[misc]
    """Given to vLLM as ``distributed_executor_backend``, which takes a class's name."""

    def _init_executor(self) -> None:
        sleep_while_waiting()
        super()._init_executor()
