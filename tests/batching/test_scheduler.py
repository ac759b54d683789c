"""The scheduler over vLLM's own, with a real queue and a real cache of blocks; only the model is left out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from serving.batching.orders import Told
from serving.engine.models import prepare
from serving.settings import Settings

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

BLOCK = 16


class Engine:
    """Steps in which every request whose prompt is computed gets a token."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.first_token: dict[str, int] = {}
        self.ended: set[str] = set()
        self.steps = 0

    def add(self, name: str, organisation: str, tokens: int, answer: int = 1, schema: bool = False) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams
        from vllm.v1.request import Request

        serial = len(self.scheduler.requests)
        wanted = StructuredOutputsParams(regex="[a-z]+") if schema else None
        extra = Told(organisation, first_token_by=float(serial)).extra()
        params = SamplingParams(max_tokens=answer, ignore_eos=True, extra_args=extra, structured_outputs=wanted)
        params._eos_token_id = 0
        request = Request(name, [serial] * tokens, params, None)
        self.scheduler.add_request(request)
        return request

    def step(self) -> int:
        """One step. Returns how many tokens it had."""
        from vllm.v1.outputs import ModelRunnerOutput

        output = self.scheduler.schedule()
        names = list(output.num_scheduled_tokens)
        sampled = []
        for name in names:
            request = self.scheduler.requests[name]
            done = request.num_computed_tokens >= request.num_tokens
            sampled.append([7] if done else [])
            if done:
                self.first_token.setdefault(name, self.steps)
        told = ModelRunnerOutput(names, {name: index for index, name in enumerate(names)}, sampled)
        before = set(self.scheduler.requests)
        self.scheduler.update_from_output(output, told)
        self.ended |= before - set(self.scheduler.requests)
        self.steps += 1
        return int(output.total_num_scheduled_tokens)


@pytest.fixture(scope="module")
def made() -> Callable[..., Engine]:
    """For a cache of so many blocks, and arguments of vLLM's."""
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    from serving.batching.orders import Orders
    from serving.batching.scheduler import FairScheduler

    model = prepare("smollm2-135m-instruct", Settings.from_environment().models, lambda _doing, _done: None)
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)

    def make(blocks: int, **arguments: Any) -> Engine:
        given: dict[str, Any] = {
            "block_size": BLOCK,
            "max_num_batched_tokens": 256,
            "max_num_seqs": 16,
            "enable_prefix_caching": False,
            "async_scheduling": False,
            "additional_config": Orders.keeping(0.1).config(),
            **arguments,
        }
        config = EngineArgs(model=str(model), **given).create_engine_config()
        config.cache_config.num_gpu_blocks = blocks
        cache = KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)])
        scheduler = FairScheduler(config, cache, StructuredOutputManager(config), BLOCK, log_stats=False)
        return Engine(scheduler)

    return make


@pytest.mark.parametrize(("organisations", "tokens", "room"), [(3, 1500, 3100), (5, 900, 1600), (8, 300, 1900)])
def test_prompts_that_do_not_all_fit_the_cache_are_all_served(
    made: Callable[..., Engine], organisations: int, tokens: int, room: int
) -> None:
    """They go on evenly until it is full. Who was served least then has no room to begin, and is not waited for."""
    engine = made(1 + room // BLOCK)
    for number in range(organisations):
        engine.add(str(number), f"org{number}", tokens + number)
    given = 0
    while len(engine.ended) < organisations:
        assert engine.steps < 300, f"only {sorted(engine.ended)} were served"
        given += engine.step()
    assert given < 2 * organisations * tokens, "most was computed once"


def test_nobody_stands_back_for_a_grammar_that_is_being_compiled(made: Callable[..., Engine]) -> None:
    engine = made(1000)
    engine.add("long", "b", 2000)
    engine.step()
    compiling: Future[Any] = Future()
    formed = engine.add("formed", "a", 20, schema=True)
    formed.structured_output_request.grammar = compiling
    for _ in range(50):
        engine.step()
    assert engine.ended == {"long"}, "it went on meanwhile"
    engine.add("next", "b", 2000)
    engine.step()
    compiling.set_exception(ValueError("no grammar"))
    for _ in range(3):
        engine.step()
    assert "next" not in engine.first_token
    assert "formed" in engine.ended, "as soon as it can be judged it comes before who was served more"


@pytest.mark.parametrize("streams", [0, 2])
def test_prompts_that_may_not_be_split_are_served_though_none_fits_a_bearable_step(
    made: Callable[..., Engine], streams: int
) -> None:
    engine = made(1000, enable_chunked_prefill=False, max_model_len=256)
    for number in range(streams):
        engine.add(f"stream{number}", "c", 1, answer=100)
    engine.step()
    for name in ("a", "b"):
        engine.add(name, name, 220)
    while not {"a", "b"} <= engine.ended:
        assert engine.steps < 20, f"only {sorted(engine.ended)} were served"
        engine.step()
