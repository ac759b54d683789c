"""Run by ``test_layers``: vLLM with the bundled model in this process, and what it makes of a few prompts, as JSON."""

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
    print(json.dumps(made))


def kinds(model: Any) -> dict[str, int]:
    """How many layers of the model are computed by what."""
    count: dict[str, int] = {}
    for module in model.modules():
        name = type(getattr(module, "quant_method", module)).__name__
        count[name] = count.get(name, 0) + 1
    return count


if __name__ == "__main__":
    main()
