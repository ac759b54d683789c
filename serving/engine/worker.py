"""vLLM's worker on CPUs: it waits asleep, its layers are faster, and seeds survive a prompt split over several steps.

Its process groups share a thread (:mod:`serving.engine.groups`).

A step is one message to it and one answer. vLLM's core otherwise sends a second one when it hears that the logits are
there, with the grammars' masks; a step without a grammar waits for nothing by that.

A step that leaves part of a prompt for later samples a token for it all the same and throws it away; vLLM 0.32 then
turns the request's random generator back by ``set_offset``. torch's generators on CPUs have no offset, so the engine
dies of any seeded prompt longer than a step. Here such a row draws from the common generator instead: its own is never
moved, and the same seed gives the same tokens however its prompt was split.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.worker.cpu_worker import CPUWorker

from serving.engine.executor import sleep_while_waiting
from serving.engine.groups import sharing_a_device
from serving.engine.layers import prepare_layers

NICER = 5
"""By how much it is nicer than gateways and fronts. It wants its cores all the time, they want one for a moment, and a
refusal or a token waits for them. Measured in overload: refusals after 32 ms instead of 37 (p95), goodput the same."""


class Worker(CPUWorker):  # type: ignore[misc] # mypy does not follow vllm
    """Given to vLLM as ``worker_cls``, which it documents."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Its threads come after it, and take its niceness. Its process makes its queues after it, too.
        os.nice(NICER)
        sleep_while_waiting()
        super().__init__(*args, **kwargs)

        parallel, scheduler = self.vllm_config.parallel_config, self.vllm_config.scheduler_config
        self._answers_at_once = parallel.pipeline_parallel_size == 1 and not scheduler.async_scheduling

    def execute_model(self, scheduler_output: SchedulerOutput) -> Any:
        """The step's tokens; ``None`` where a grammar has a say in them, and :meth:`sample_tokens` is yet to come."""
        output = super().execute_model(scheduler_output)
        if output is None and self._answers_at_once and not scheduler_output.has_structured_output_requests:
            return self.sample_tokens(None)
        return output

    def init_device(self) -> None:
        with sharing_a_device():
            super().init_device()
        keep_generators(self.model_runner)
        # Not before: vLLM's own kernels must be loaded first, and this loads numba.
        from serving.batching.sampler import draw_in_one_sweep

        draw_in_one_sweep(self.model_runner)

    def load_model(self, **kwargs: Any) -> None:
        prepare_layers(self.vllm_config)
        super().load_model(**kwargs)


def keep_generators(runner: Any) -> None:
    """Put aside the generators of rows whose token is thrown away, from sampling until after the bookkeeping."""
    sample, bookkeep = runner._sample, runner._bookkeeping_sync
    aside: dict[int, Any] = {}

    def sample_without(*args: Any, **kwargs: Any) -> Any:
        generators = runner.input_batch.generators
        if generators:
            discarded = np.nonzero(runner.discard_request_mask.np[: runner.input_batch.num_reqs])[0]
            aside.update({row: generators.pop(row) for row in discarded.tolist() if row in generators})
        return sample(*args, **kwargs)

    def bookkeep_and_return(*args: Any, **kwargs: Any) -> Any:
        try:
            return bookkeep(*args, **kwargs)
        finally:
            runner.input_batch.generators.update(aside)
            aside.clear()

    runner._sample, runner._bookkeeping_sync = sample_without, bookkeep_and_return
