"""Run by ``test_layers``: vLLM with the bundled model in this process, and what it makes of a few prompts, as JSON.

It draws twice, with our sampler and with vLLM's, which sorts: of the same logits, as all else is the same engine.
"""

from __future__ import annotations

import json
import sys
from typing import Any

PROMPTS = ("The capital of France is", "Water boils at a temperature of", "Once upon a time, in a city by the sea,")


def main() -> None:
    from vllm import LLM, SamplingParams

    weights, linear, dtype = sys.argv[1:]
    llm = LLM(
        model=weights,
        dtype=dtype,
        enforce_eager=True,
        max_model_len=256,
        kv_cache_memory_bytes=1 << 28,
        distributed_executor_backend="uni",
        worker_cls="serving.engine.worker.Worker",
        additional_config={"domicile_linear": linear},
        logits_processors=["serving.batching.nucleus:Nucleus"],
        enable_prefix_caching=False,
    )
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, prompt_logprobs=0)
    answers = llm.generate(list(PROMPTS), params, use_tqdm=False)
    made = {
        "kinds": llm.apply_model(kinds)[0],
        "tokens": [list(answer.outputs[0].token_ids) for answer in answers],
        "logprobs": [
            [one.logprob for step in answer.prompt_logprobs[1:] for one in step.values()] for answer in answers
        ],
    }
    made["drawn"] = drawn(llm)
    made["sampler"] = llm.collective_rpc(with_vllms_sampler)[0]
    made["drawn by vllm"] = drawn(llm, ours=False)
    print(json.dumps(made))


def drawn(llm: Any, ours: bool = True) -> list[list[int]]:
    """Of prompts that each want something else, with a seed."""
    from vllm import SamplingParams

    from serving.batching.nucleus import take_over

    asked = [
        SamplingParams(max_tokens=24, ignore_eos=True, seed=seed, **wanted)
        for seed, wanted in enumerate(
            (
                {"temperature": 0.8, "top_p": 0.9},
                {"temperature": 1.0},
                {"temperature": 1.3, "top_k": 40, "top_p": 0.95},
                {"temperature": 0.7, "min_p": 0.05},
                {"temperature": 0.0},
                {"temperature": 2.0, "top_p": 0.99},
            )
        )
    ]
    if ours:
        for params in asked:
            take_over(params)
    answers = llm.generate([PROMPTS[turn % len(PROMPTS)] for turn in range(len(asked))], asked, use_tqdm=False)
    return [list(answer.outputs[0].token_ids) for answer in answers]


def with_vllms_sampler(worker: Any) -> str:
    """From here on. The name of the one before."""
    from vllm.v1.sample.sampler import Sampler

    before = type(worker.model_runner.sampler).__name__
    worker.model_runner.sampler = Sampler()
    return before


def kinds(model: Any) -> dict[str, int]:
    """How many layers of the model are computed by what."""
    count: dict[str, int] = {}
    for module in model.modules():
        name = type(getattr(module, "quant_method", getattr(module, "impl", module))).__name__
        count[name] = count.get(name, 0) + 1
    return count


if __name__ == "__main__":
    main()
