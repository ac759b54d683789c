"""``python -m kernels.linear.bench``: the kernel's tests, and if they pass its time beside vLLM's oneDNN.

What is timed is a step's linear layers, one after the other: all those of SmolLM2-135M and its head, each with weights
of its own, since layers that share them would find them in the cache. The contenders take turns within each round, on
the same inputs and threads. Where the CPU has AMX, ours is the kernel for it, and the one for vectors is timed too. To
have numba and torch share one OpenMP library, as a replica's engine does, start it with ``LD_PRELOAD=…/libiomp5.so``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from kernels import linear
from kernels.linear import cpu

ROOT = Path(__file__).parents[2]
ROWS = (1, 4, 8, 16, 32, 128, 512)
LAYERS = 30
BLOCK = ((960, 576), (576, 576), (3072, 576), (576, 1536))
"""Outputs and inputs of a layer's projections: query, key and value; output; gate and up; down."""
HEAD = (49_152, 576)

Layer = Callable[[Tensor], Any]


def weights() -> list[Tensor]:
    """Float32, each number one of bfloat16's."""
    drawn = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=drawn).bfloat16().float() for shape in (*BLOCK * LAYERS, HEAD)]


def packed(weight: Tensor, kernel: ModuleType) -> Layer:
    layer = kernel.pack(weight)
    if layer is None:
        raise ValueError("bfloat16 cannot hold the weight")
    return lambda inputs: kernel.apply(inputs, layer)


def vllm_onednn() -> Callable[[Tensor], Layer]:
    """vLLM's own way on CPUs, as its linear layers go it, in the weight's type."""
    # By name: what is measured against is not what this is built on.
    import_module("vllm._C")
    operations = import_module("vllm._custom_ops")

    def prepare(weight: Tensor) -> Layer:
        handler = operations.create_onednn_mm(weight.t(), 32)
        return lambda inputs: operations.onednn_mm(handler, inputs, None)

    return prepare


def step(layers: Sequence[Layer], widths: Sequence[int], rows: int, dtype: torch.dtype) -> Callable[[], None]:
    """One product after the other, each of a width's inputs."""
    drawn = torch.Generator().manual_seed(1)
    inputs = {width: torch.randn(rows, width, generator=drawn).to(dtype) for width in dict.fromkeys(widths)}

    def run() -> None:
        for layer, width in zip(layers, widths, strict=True):
            layer(inputs[width])

    return run


def measure(contenders: Sequence[Callable[[], None]], rounds: int) -> list[float]:
    """The median seconds of each. One round warms up."""
    taken: list[list[float]] = [[] for _ in contenders]
    for turn in range(rounds + 1):
        for times, contender in zip(taken, contenders, strict=True):
            begun = time.perf_counter()
            contender()
            if turn:
                times.append(time.perf_counter() - begun)
    return [median(times) for times in taken]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m kernels.linear.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: as many as torch takes")
    chosen = parser.parse_args()
    files = sorted(str(file) for file in (ROOT / "tests" / "kernels").glob("test_linear*.py"))
    if subprocess.run([sys.executable, "-m", "pytest", "-q", *files], cwd=ROOT, check=False).returncode:
        print("the tests fail: nothing is measured", file=sys.stderr)
        return 1
    torch.set_num_threads(chosen.threads)
    onednn = vllm_onednn()
    begun = time.perf_counter()
    kernels = list(dict.fromkeys((linear.kernel("cpu"), cpu)))
    for each in kernels:
        each.warm()
    print(f"\n{chosen.threads} threads, {chosen.rounds} rounds, medians; ", end="")
    print(f"warmed in {time.perf_counter() - begun:.1f} s\n")
    made = weights()
    widths = [weight.shape[1] for weight in made]
    ours = [[packed(weight, each) for weight in made] for each in kernels]
    theirs = [[onednn(weight.to(dtype)) for weight in made] for dtype in (torch.float32, torch.bfloat16)]
    del made
    names = [f"{each.__name__.rpartition('.')[2]}, ms" for each in kernels]
    names += ["oneDNN float32, ms", "oneDNN bfloat16, ms", "× float32", "× bfloat16"]
    print(f"| rows | {' | '.join(names)} |\n{'|---' * (len(names) + 1)}|")
    for rows in ROWS:
        contenders = [step(layers, widths, rows, torch.float32) for layers in [*ours, theirs[0]]]
        contenders.append(step(theirs[1], widths, rows, torch.bfloat16))
        taken = measure(contenders, chosen.rounds)
        times = " | ".join(f"{1e3 * each:.1f}" for each in taken)
        print(f"| {rows} | {times} | {taken[-2] / taken[0]:.2f} | {taken[-1] / taken[0]:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
