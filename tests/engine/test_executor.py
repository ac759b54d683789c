"""vLLM's processes wait for each other asleep, and lose nothing by it."""

from __future__ import annotations

import inspect
import multiprocessing
import re
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.engine

MESSAGES = 40
APART_S = 0.1
TOGETHER_S = 0.0004
"""Between two messages of a pair: the second one's notification is dropped."""


@dataclass(frozen=True)
class Read:
    """What a process read."""

    seen: list[int]
    late_s: float
    """The longest that a message took."""
    cpu_s: float


def _read(handle: object, ours: bool, told: Connection) -> None:
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

    from serving.engine.executor import sleep_while_waiting

    if ours:
        sleep_while_waiting()
    queue = MessageQueue.create_from_handle(handle, 0)
    queue.wait_until_ready()
    told.send(None)
    began, seen, late_s = time.process_time(), [], 0.0
    for _ in range(MESSAGES):
        number, sent = queue.dequeue(timeout=30)
        seen.append(number)
        late_s = max(late_s, time.monotonic() - sent)
    told.send(Read(seen, late_s, time.process_time() - began))


def read_by(*, ours: bool) -> Read:
    """What a process read of messages that came two at a time, now and then."""
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

    queue = MessageQueue(1, 1)
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    reader = context.Process(target=_read, args=(queue.export_handle(), ours, there))
    reader.start()
    try:
        queue.wait_until_ready()
        here.recv()
        for number in range(0, MESSAGES, 2):
            time.sleep(APART_S)
            queue.enqueue((number, time.monotonic()))
            time.sleep(TOGETHER_S)
            queue.enqueue((number + 1, time.monotonic()))
        assert here.poll(30)
        found = here.recv()
        assert isinstance(found, Read)
        return found
    finally:
        reader.join(30)
        if reader.is_alive():
            reader.kill()


def test_a_process_that_waits_leaves_the_core_to_others_and_misses_no_message() -> None:
    """Where vLLM's own way is no worse, ours can go."""
    ours, polled = read_by(ours=True), read_by(ours=False)
    assert ours.seen == polled.seen == list(range(MESSAGES))
    assert ours.late_s < 2.0, "a notification that was dropped is found by vLLM itself after five seconds"
    assert ours.cpu_s < polled.cpu_s / 3


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whose logits are there after a step, and that has made nothing of them yet."""
    from vllm.v1.worker.cpu_worker import CPUWorker

    from serving.engine.worker import Worker

    made: Any = object.__new__(Worker)
    made._answers_at_once = True
    monkeypatch.setattr(
        CPUWorker, "execute_model", lambda _self, step: None if step.num_scheduled_tokens else "nothing"
    )
    monkeypatch.setattr(CPUWorker, "sample_tokens", lambda _self, grammar: ("tokens", grammar))
    return made


def step_of(*, grammar: bool, tokens: int = 1) -> Any:
    from vllm.v1.core.sched.output import SchedulerOutput

    step = SchedulerOutput.make_empty()
    step.num_scheduled_tokens = {"one": tokens} if tokens else {}
    step.has_structured_output_requests = grammar
    return step


def test_a_step_without_a_grammar_is_answered_with_its_tokens(worker: Any) -> None:
    assert worker.execute_model(step_of(grammar=False)) == ("tokens", None)
    assert worker.execute_model(step_of(grammar=True)) is None
    assert worker.execute_model(step_of(grammar=False, tokens=0)) == "nothing"
    worker._answers_at_once = False
    assert worker.execute_model(step_of(grammar=False)) is None


def test_vllms_core_asks_for_tokens_only_where_it_was_not_given_them() -> None:
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.engine.core import EngineCore

    source = inspect.getsource(EngineCore.step)
    asked = re.compile(
        r"model_output = future\.result\(\)\s+if model_output is None:\s+model_output = self.model_executor"
    )
    assert asked.search(source)
    mask = inspect.getsource(Scheduler.get_grammar_bitmask)
    assert "if not scheduler_output.has_structured_output_requests:\n            return None" in mask


def test_vllm_makes_its_queues_by_the_name_that_we_replace_and_after_the_worker() -> None:
    from vllm.distributed.device_communicators import shm_broadcast
    from vllm.v1.executor import multiproc_executor

    source = Path(inspect.getfile(shm_broadcast)).read_text()
    assert len(re.findall(r"= SpinCondition\(", source)) == 2
    condition = inspect.getsource(shm_broadcast.SpinCondition)
    assert "self.last_read + self.busy_loop_s" in condition
    made = inspect.getsource(multiproc_executor.WorkerProc.__init__)
    assert made.index("init_worker(") < made.index("_init_message_queues(")


def test_the_runner_has_the_names_that_keep_a_seed() -> None:
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    source = inspect.getsource(GPUModelRunner)
    for name in ("_sample(", "_bookkeeping_sync(", "self.discard_request_mask.np[", "self.input_batch.generators.get("):
        assert name in source, name
    assert source.index("sampler_output = self._sample(") < source.index("= self._bookkeeping_sync(")
