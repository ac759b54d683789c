"""vLLM's processes wait for each other asleep, and lose nothing by it."""

from __future__ import annotations

import gc
import inspect
import multiprocessing
import re
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.engine

SHARED_MEMORY = Path("/dev/shm")
MESSAGES = 40
APART_S = 0.1
TOGETHER_S = 0.0004
"""Between two messages of a pair. ZeroMQ drops the second one's notification."""


@contextmanager
def sleeping() -> Iterator[None]:
    """Queues that are made meanwhile are waited for as ours are."""
    from vllm.distributed.device_communicators import shm_broadcast

    from serving.engine.executor import sleep_while_waiting

    polling = shm_broadcast.SpinCondition
    sleep_while_waiting()
    try:
        yield
    finally:
        shm_broadcast.SpinCondition = polling


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

    with sleeping() if ours else nullcontext():
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
    assert ours.late_s < 2.0, "a message that nobody was told of is found by vLLM itself after five seconds"
    assert ours.cpu_s < polled.cpu_s / 3


def test_a_reader_that_is_called_off_wakes_up() -> None:
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

    with sleeping():
        queue = MessageQueue(1, 1)
        reader = MessageQueue.create_from_handle(queue.export_handle(), 0)
        with ThreadPoolExecutor(1) as aside:
            reading = aside.submit(reader.dequeue, indefinite=True)
            time.sleep(0.2)
            assert not reading.done()
            reader.shutdown()
            with pytest.raises(RuntimeError, match="cancelled"):
                reading.result(timeout=2)


@pytest.mark.parametrize("used", [True, False])
def test_a_queue_leaves_no_name_behind(used: bool) -> None:
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

    with sleeping():
        before = set(SHARED_MEMORY.glob("domicile-*"))
        queue = MessageQueue(1, 1)
        (named,) = set(SHARED_MEMORY.glob("domicile-*")) - before
        reader = MessageQueue.create_from_handle(queue.export_handle(), 0)
        if used:
            queue.enqueue("there")
            assert not named.exists()
            assert reader.dequeue(timeout=2) == "there"
        del queue, reader
        gc.collect()
        assert not named.exists()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_whoever_has_not_seen_the_last_ring_does_not_sleep(rings: list[int], start: int) -> None:
    from serving.engine.executor import Bell

    bell = Bell(uuid.uuid4().hex, create=True)
    try:
        bell.ring(start)
        for count in rings:
            seen = bell.value
            for _ in range(count):
                bell.ring()
            began = time.monotonic()
            bell.wait(seen, 100)
            assert (time.monotonic() - began < 0.09) == bool(count)
    finally:
        bell.unname()


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


def test_the_runner_asks_the_sampler_that_we_put_there() -> None:
    from vllm.v1.sample.sampler import Sampler
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    source = inspect.getsource(GPUModelRunner)
    made = "self.sampler = Sampler(\n            logprobs_mode=self.model_config.logprobs_mode,\n"
    assert made + "            use_fp64_gumbel=self.model_config.use_fp64_gumbel,\n        )" in source
    assert "return self.sampler(\n                logits=logits,\n" in source
    assert "sampled, processed_logprobs = self.sample(logits, sampling_metadata)" in inspect.getsource(Sampler.forward)
    assert list(inspect.signature(Sampler.sample).parameters) == [
        "self",
        "logits",
        "sampling_metadata",
        "logprobs_mode_override",
    ]
