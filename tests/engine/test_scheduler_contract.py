"""Every name of vLLM's scheduler that ours uses, held against the pinned release: an upgrade fails here first."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

OWN = {
    "running",
    "waiting",
    "requests",
    "vllm_config",
    "scheduler_config",
    "need_mamba_block_aligned_split",
    "max_num_active_reqs",
    "max_num_scheduled_tokens",
}
"""Attributes of the scheduler."""
OF_REQUESTS = {
    "request_id",
    "is_prefill_chunk",
    "num_computed_tokens",
    "num_output_placeholders",
    "num_tokens",
    "num_tokens_with_spec",
    "sampling_params",
    "status",
    "structured_output_request",
}
"""Attributes of its requests."""


def test_it_uses_no_other_names() -> None:
    from serving.batching import scheduler

    source = Path(inspect.getfile(scheduler)).read_text()
    assert set(re.findall(r"\bown\.([a-z_]+)", source)) == OWN
    assert set(re.findall(r"\b(?:request|one)\.([a-z_]+)", source)) <= OF_REQUESTS


def test_the_scheduler_has_these_names_and_reads_them_where_we_set_them() -> None:
    from vllm.v1.core.sched.scheduler import Scheduler

    made = inspect.getsource(Scheduler.__init__)
    for name in OWN:
        assert f"self.{name}" in made, name
    step = inspect.getsource(Scheduler.schedule)
    assert "token_budget = self.max_num_scheduled_tokens" in step
    assert "self.max_num_active_reqs" in step
    assert list(inspect.signature(Scheduler.schedule).parameters) == ["self", "throttle_prefills"]
    assert list(inspect.signature(Scheduler.update_from_output).parameters) == [
        "self",
        "scheduler_output",
        "model_runner_output",
    ]


def test_requests_have_these_names() -> None:
    from vllm.v1.request import Request

    made = inspect.getsource(Request)
    for name in OF_REQUESTS:
        assert re.search(rf"self\.{name}\b|def {name}\(", made), name
    assert "extra_args" in inspect.getsource(__import__("vllm").SamplingParams)


def test_what_a_step_had_is_told_as_we_read_it() -> None:
    from vllm.v1.core.sched.output import SchedulerOutput

    assert {"num_scheduled_tokens", "total_num_scheduled_tokens"} <= set(SchedulerOutput.__annotations__)


def test_the_waiting_queue_can_be_put_in_order() -> None:
    from vllm.v1.core.sched.request_queue import FCFSRequestQueue

    queue = FCFSRequestQueue()
    queue.extend([1, 2, 3])
    assert list(queue) == [1, 2, 3]
    queue.clear()
    assert not queue


def test_the_engine_makes_the_scheduler_by_its_name() -> None:
    from vllm.config.scheduler import SchedulerConfig

    source = inspect.getsource(SchedulerConfig.get_scheduler_cls)
    assert "resolve_obj_by_qualname(self.scheduler_cls)" in source


def test_an_engine_waits_for_each_step_on_a_cpu_and_prepares_one_ahead_on_a_gpu() -> None:
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    from serving.batching.scheduler import FairAsyncScheduler, FairScheduler, FairScheduling

    assert FairScheduler.__mro__[1:3] == (FairScheduling, Scheduler)
    assert FairAsyncScheduler.__mro__[1:3] == (FairScheduling, AsyncScheduler)


def test_a_request_whose_grammar_is_compiled_is_known_by_what_vllm_goes_by() -> None:
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.request import RequestStatus
    from vllm.v1.structured_output.request import StructuredOutputRequest

    assert RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
    assert isinstance(StructuredOutputRequest.grammar, property)
    assert "struct_output_req.grammar is None" in inspect.getsource(Scheduler._handle_blocked_waiting_request)
