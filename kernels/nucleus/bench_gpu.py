"""``python -m kernels.nucleus.bench_gpu``: on a CUDA GPU, the kernel's tests, and its time beside vLLM's in Triton.

Each is timed as a replayed graph, as an engine runs them, less the copy of the logits that each replay begins with.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import triton
from torch import Tensor
from triton.testing import do_bench_cudagraph

from kernels import nucleus
from kernels.nucleus.bench import ROOT, ROWS, VOCABULARIES, logits_of

BATCHES = (1, 16, 64, 256)
ASKED: dict[str, tuple[int | None, float | None]] = {
    "top_p 0.9": (None, 0.9),
    "top_k 50, top_p 0.95": (50, 0.95),
    "top_k 50": (50, None),
}


def rows_of(kind: str, rows: int, size: int) -> Tensor:
    """Float32 [rows, size] on the GPU."""
    return logits_of(kind, size).repeat(-(-rows // ROWS), 1)[:rows].contiguous().cuda()


def microseconds(apply: Callable[[Tensor], Any], logits: Tensor) -> float:
    """The median of a replay, less that of copying the logits to where they are worked on."""
    work = logits.clone()
    copied = do_bench_cudagraph(lambda: work.copy_(logits), rep=20, return_mode="median")
    whole = do_bench_cudagraph(lambda: (work.copy_(logits), apply(work)), rep=30, return_mode="median")
    return float(1e3 * (whole - copied))


def main() -> int:
    if not torch.cuda.is_available():
        print("there is no CUDA GPU here", file=sys.stderr)
        return 2
    tests = [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "kernels" / "test_on_gpu.py")]
    if subprocess.run(tests, cwd=ROOT, check=False).returncode:
        print("the tests fail: nothing is measured", file=sys.stderr)
        return 1
    # By name: what is measured against is not what this is built on.
    theirs = import_module("vllm.v1.sample.ops.topk_topp_triton").apply_top_k_top_p_triton
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}, Triton {triton.__version__}; medians, µs\n")
    print("| rows | vocabulary | logits | parameters | ours | vLLM's | × |")
    print("|---|---|---|---|---|---|---|")
    for rows in BATCHES:
        for size in VOCABULARIES:
            for kind in ("peaked", "real", "flat", "equal"):
                logits = rows_of(kind, rows, size)
                for name, (k, p) in ASKED.items():
                    top_k = None if k is None else torch.full((rows,), k, dtype=torch.int32, device="cuda")
                    top_p = None if p is None else torch.full((rows,), p, device="cuda")
                    own = microseconds(lambda work, k=top_k, p=top_p: nucleus.apply(work, top_k=k, top_p=p), logits)  # type: ignore[misc]
                    other = microseconds(lambda work, k=top_k, p=top_p: theirs(work, k, p), logits)  # type: ignore[misc]
                    print(f"| {rows} | {size} | {kind} | {name} | {own:.0f} | {other:.0f} | {other / own:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
