"""``python -m kernels.nucleus.bench``: the kernel's tests, and if they pass its time beside vLLM's sort and ``exp``.

And all the way from logits to a token, beside vLLM's temperature, sort and draw, and its search for the largest.

Ours has read the limits before, as an engine reads them once for many steps. The three take turns within each round,
on the same logits and threads, so that what else the machine does meets all of them. Each line's rounds are spread over
several passes through all lines: a machine that is slow for some seconds meets a few rounds of each, and no line whole.
To have numba and torch share one OpenMP library, as a replica's engine does, start it with
``LD_PRELOAD=…/libiomp5.so``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from kernels.nucleus import cpu

ROOT = Path(__file__).parents[2]
ROWS = 16
ROUNDS = 3
"""Of a line, one after the other in each pass."""
VOCABULARIES = (49_152, 151_936)

Limits = dict[str, Tensor]


def logits_of(kind: str, size: int) -> Tensor:
    """Float32 [ROWS, size]: one token far ahead, a few candidates over a wide field, plain noise, or all the same."""
    drawn = torch.Generator().manual_seed(0)
    noise = torch.randn(ROWS, size, generator=drawn)
    if kind == "peaked":
        return (noise * 2).index_fill_(1, torch.tensor([size // 2]), 30.0)
    if kind == "real":
        places = torch.stack([torch.randperm(size, generator=drawn)[:40] for _ in range(ROWS)])
        return (noise * 2.2 - 2).scatter_(1, places, torch.linspace(14, 6, 40).repeat(ROWS, 1))
    return noise if kind == "flat" else torch.zeros(ROWS, size)


def limits_of() -> dict[str, Limits]:
    """What requests ask for; the last is a batch in which every row asks for something else, a quarter for nothing."""
    row = torch.arange(ROWS)
    return {
        "top_p 0.9": {"top_p": torch.full((ROWS,), 0.9)},
        "top_k 50, top_p 0.95": {"top_k": torch.full((ROWS,), 50), "top_p": torch.full((ROWS,), 0.95)},
        "min_p 0.05": {"min_p": torch.full((ROWS,), 0.05)},
        "mixed": {
            "top_k": torch.where(row % 4 == 1, 40, 0),
            "top_p": torch.where(row % 4 == 2, 0.95, 1.0),
            "min_p": torch.where(row % 4 == 3, 0.05, 0.0),
        },
    }


def vllm_sort() -> Callable[..., Any]:
    """vLLM's own way on CPUs, as its sampler goes it: min-p over a softmax, then top-k and top-p over a sort."""
    # By name: what is measured against is not what this is built on.
    sort = import_module("vllm.v1.sample.ops.topk_topp_sampler").apply_top_k_top_p_pytorch

    def apply(logits: Tensor, limits: Limits) -> Any:
        if "min_p" in limits:
            share = logits.softmax(dim=-1)
            floor = share.amax(dim=-1, keepdim=True).mul_(limits["min_p"].unsqueeze(1))
            logits.masked_fill_(share < floor, -torch.inf)
        top_k = limits.get("top_k")
        if top_k is not None:
            top_k = torch.where(top_k > 0, top_k, logits.shape[1])
        return sort(logits, top_k, limits.get("top_p"), allow_cpu_sync=True)

    return apply


def vllm_draw() -> Callable[..., Any]:
    """vLLM's own way on CPUs from logits to a token of each row."""
    import_module("vllm._C")  # which registers its operations
    sort, draw = vllm_sort(), torch.ops._C.fused_gumbel_argmax

    def apply(logits: Tensor, temperatures: Tensor, limits: Limits, seeds: Tensor) -> Any:
        logits.div_(temperatures.unsqueeze(1))
        return draw(sort(logits, limits) if limits else logits, seeds)

    return apply


@dataclass(frozen=True, slots=True)
class Line:
    """Who is measured on what. ``work`` is where logits are copied to, which is not counted, and worked on."""

    words: tuple[str, ...]
    logits: Tensor
    work: Tensor
    contenders: tuple[Callable[[Tensor], Any], ...]


def measure(lines: Sequence[Line], passes: int) -> list[list[float]]:
    """The median milliseconds of each contender of each line. One round of each pass warms up."""
    taken: list[list[list[float]]] = [[[] for _ in line.contenders] for line in lines]
    for _ in range(passes):
        for line, times in zip(lines, taken, strict=True):
            for turn in range(ROUNDS + 1):
                for own, contender in zip(times, line.contenders, strict=True):
                    line.work.copy_(line.logits)
                    begun = time.perf_counter()
                    contender(line.work)
                    if turn:
                        own.append(1e3 * (time.perf_counter() - begun))
    return [[median(own) for own in times] for times in taken]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m kernels.nucleus.bench", description=__doc__)
    parser.add_argument("--passes", type=int, default=5, help=f"each of {ROUNDS} rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: as many as torch takes")
    chosen = parser.parse_args()
    tests = [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "kernels")]
    if subprocess.run(tests, cwd=ROOT, check=False).returncode:
        print("the tests fail: nothing is measured", file=sys.stderr)
        return 1
    torch.set_num_threads(chosen.threads)
    begun = time.perf_counter()
    cpu.warm()
    print(f"\n{ROWS} rows, {chosen.threads} threads, {chosen.passes} passes of {ROUNDS} rounds, medians; ", end="")
    print(f"warmed in {time.perf_counter() - begun:.1f} s\n")
    cuts(chosen.passes)
    draws(chosen.passes)
    return 0


def cuts(passes: int) -> None:
    sort, lines = vllm_sort(), []
    for size in VOCABULARIES:
        # Into memory that is there: fresh pages may take ``exp`` four times as long, or not.
        work, exps = torch.empty(ROWS, size), torch.empty(ROWS, size)
        for kind in ("peaked", "real", "flat", "equal"):
            logits = logits_of(kind, size)
            for name, limits in limits_of().items():
                contenders = (
                    partial(cpu.apply_limits, limits=cpu.limits(logits, **limits)),
                    partial(sort, limits=limits),
                    partial(torch.exp, out=exps),
                )
                lines.append(Line((str(size), kind, name), logits, work, contenders))
    print("| vocabulary | logits | parameters | ours, ms | vLLM's sort, ms | exp, ms | × sort | ours / exp |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for line, (ours, theirs, exp) in zip(lines, measure(lines, passes), strict=True):
        print(
            f"| {' | '.join(line.words)} | {ours:.2f} | {theirs:.1f} | {exp:.2f} "
            f"| {theirs / ours:.0f} | {ours / exp:.1f} |"
        )


def draws(passes: int) -> None:
    theirs_of, lines = vllm_draw(), []
    temperatures, seeds = torch.full((ROWS,), 0.8), torch.arange(ROWS)
    asked: dict[str, Limits] = {"nothing": {}, **limits_of()}
    for size in VOCABULARIES:
        work = torch.empty(ROWS, size)
        for kind in ("peaked", "real", "flat"):
            logits = logits_of(kind, size)
            for name in ("nothing", "top_p 0.9", "top_k 50, top_p 0.95"):
                limits = asked[name]
                read = cpu.limits(logits, **limits)
                contenders = (
                    partial(cpu.draw, temperatures=temperatures, limits=read, seeds=seeds),
                    partial(theirs_of, temperatures=temperatures, limits=limits, seeds=seeds),
                    torch.ops._C.greedy_argmax,
                )
                lines.append(Line((str(size), kind, name), logits, work, contenders))
    print(
        "\n| vocabulary | logits | parameters | ours, ms | vLLM's, ms | the largest, ms | × vLLM's | ours / largest |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for line, (ours, theirs, largest) in zip(lines, measure(lines, passes), strict=True):
        print(
            f"| {' | '.join(line.words)} | {ours:.2f} | {theirs:.1f} | {largest:.2f} "
            f"| {theirs / ours:.1f} | {ours / largest:.1f} |"
        )


if __name__ == "__main__":
    sys.exit(main())
