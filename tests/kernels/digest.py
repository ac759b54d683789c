"""Run by ``test_linear_process``: how many lanes the CPU kernel has, and what it computes, in a few bytes."""

from __future__ import annotations

import hashlib
import sys

import torch

from kernels.linear import Packed, cpu, reference
from tests.kernels.products import near, product


def main() -> None:
    torch.use_deterministic_algorithms(True)  # new memory is full of NaN
    digest = hashlib.sha256()
    for rows in range(20):
        for outputs in (1, 7, 8, 16, 17, 47, 48, 49, 200):
            problem = product((rows,), 3 * rows + 1, outputs, bias=bool(outputs % 2), seed=rows)
            packed = cpu.pack(problem.weight)
            assert packed is not None
            done = cpu.apply(problem.inputs, packed, problem.bias)
            wide = Packed(problem.weight.bfloat16(), outputs, packed.inputs)
            assert near(done, reference.apply(problem.inputs, wide, problem.bias), problem)
            digest.update(done.numpy().tobytes())
    sys.stdout.write(f"{cpu.LANES} {digest.hexdigest()}\n")


if __name__ == "__main__":
    main()
