"""``python -m kernels.nucleus.bench_gpu``: on a CUDA GPU, the kernel's tests, and its time beside those vLLM has.

Two tables: the masking alone beside vLLM's kernel in Triton; then all the way to a token, also beside FlashInfer's
rejection sampler where that is installed, called as vLLM calls it. Each is timed as a replayed graph, less the copy of
the logits that each replay begins with.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from itertools import product
from typing import Any

import torch
import triton
from torch import Tensor
from triton.testing import do_bench_cudagraph

from kernels import nucleus
from kernels.nucleus.bench import ROOT, ROWS, VOCABULARIES, logits_of

BATCHES = (1, 16, 64, 256)
KINDS = ("peaked", "real", "flat", "equal")
ASKED: dict[str, tuple[int | None, float | None]] = {
    "top_p 0.9": (None, 0.9),
    "top_k 50, top_p 0.95": (50, 0.95),
    "top_k 50": (50, None),
}

Sampler = Callable[[Tensor, Tensor | None, Tensor | None], Any]
"""Of logits [rows, vocabulary], which it may write to, with top-k and top-p [rows], each or neither."""


def rows_of(kind: str, rows: int, size: int) -> Tensor:
    """Float32 [rows, size] on the GPU."""
    return logits_of(kind, size).repeat(-(-rows // ROWS), 1)[:rows].contiguous().cuda()


def microseconds(apply: Callable[[Tensor], Any], logits: Tensor) -> float:
    """The median of a replay, less that of copying the logits to where they are worked on."""
    work = logits.clone()
    copied = do_bench_cudagraph(lambda: work.copy_(logits), rep=20, return_mode="median")
    whole = do_bench_cudagraph(lambda: (work.copy_(logits), apply(work)), rep=30, return_mode="median")
    return float(1e3 * (whole - copied))


def limits_of(name: str, rows: int) -> tuple[Tensor | None, Tensor | None]:
    k, p = ASKED[name]
    top_k = None if k is None else torch.full((rows,), k, dtype=torch.int32, device="cuda")
    return top_k, None if p is None else torch.full((rows,), p, device="cuda")


def drawn(logits: Tensor) -> Tensor:
    """A token a row, [rows], as vLLM draws where it samples by itself: the first of exponential clocks to ring."""
    weights = logits.softmax(dim=-1, dtype=torch.float32)
    return weights.div_(torch.empty_like(weights).exponential_()).argmax(dim=-1)


def flashinfer() -> Sampler | None:
    """Logits, top-k and top-p to tokens, with the calls that vLLM 0.32 makes of it; None where it is not installed."""
    try:
        sampling = import_module("flashinfer.sampling")
    except ImportError:
        return None
    # A seed that is given: to draw one it would change the generator's state, which a graph cannot record.
    fixed = {"deterministic": True, "seed": 0, "offset": 0}

    def sample(logits: Tensor, top_k: Tensor | None, top_p: Tensor | None) -> Any:
        if top_k is not None and top_p is not None:
            return sampling.top_k_top_p_sampling_from_logits(logits, top_k, top_p, **fixed)
        weights = logits.softmax(dim=-1, dtype=torch.float32)
        if top_k is None:
            return sampling.top_p_sampling_from_probs(weights, top_p, **fixed)
        return sampling.top_k_sampling_from_probs(weights, top_k, **fixed)

    return sample


def samplers() -> dict[str, tuple[Sampler | None, Sampler]]:
    """By name, the masking alone and all the way to a token."""
    # By name: what is measured against is not what this is built on.
    theirs = import_module("vllm.v1.sample.ops.topk_topp_triton").apply_top_k_top_p_triton
    rejecting = flashinfer()
    found: dict[str, tuple[Sampler | None, Sampler]] = {
        "ours": (ours, lambda work, k, p: drawn(ours(work, k, p))),
        "vLLM's": (theirs, lambda work, k, p: drawn(theirs(work, k, p))),
    }
    return found | ({"FlashInfer's": (None, rejecting)} if rejecting else {})


def ours(work: Tensor, top_k: Tensor | None, top_p: Tensor | None) -> Tensor:
    return nucleus.apply(work, top_k=top_k, top_p=top_p)


def table(compared: Mapping[str, Sampler]) -> None:
    """A row for every batch, kind of logits and limits: medians in microseconds, and the best of the others in ours."""
    names = list(compared)
    print(f"| rows | vocabulary | logits | parameters | {' | '.join(names)} | best of theirs ÷ ours |")
    print("|---" * (5 + len(names)) + "|")
    for rows, size, kind in product(BATCHES, VOCABULARIES, KINDS):
        logits = rows_of(kind, rows, size)
        for asked in ASKED:
            limits = limits_of(asked, rows)
            times = [microseconds(partial(_applied, sampler, limits), logits) for sampler in compared.values()]
            figures = " | ".join(f"{one:.0f}" for one in times)
            print(f"| {rows} | {size} | {kind} | {asked} | {figures} | {min(times[1:]) / times[0]:.2f} |", flush=True)


def _applied(sampler: Sampler, limits: tuple[Tensor | None, Tensor | None], work: Tensor) -> Any:
    return sampler(work, *limits)


def main() -> int:
    if not torch.cuda.is_available():
        print("there is no CUDA GPU here", file=sys.stderr)
        return 2
    tests = [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "kernels" / "test_on_gpu.py")]
    if subprocess.run(tests, cwd=ROOT, check=False).returncode:
        print("the tests fail: nothing is measured", file=sys.stderr)
        return 1
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}, Triton {triton.__version__}; medians, µs\n")
    all_of_them = samplers()
    table({name: masking for name, (masking, _) in all_of_them.items() if masking})
    print("\nTo a token:\n")
    table({name: whole for name, (_, whole) in all_of_them.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
