"""Run by ``test_nucleus_triton``: compile the GPU kernels for a chip that need not be there, and print their PTX."""

from __future__ import annotations

import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.nucleus import triton as gpu

TYPES = {
    **dict.fromkeys(("logits", "gaps", "shares", "tops", "bounds"), "*fp32"),
    **dict.fromkeys(("stride", "step"), "i64"),
    **dict.fromkeys(("size", "parts"), "i32"),
    **dict.fromkeys(("counts", "buckets", "rests", "sums"), "*i64"),
    **dict.fromkeys(("taken", "portions", "candidates", "columns"), "*i32"),
    **dict.fromkeys(("most", "few", "bounded", "block"), "constexpr"),
}
KERNELS: tuple[Any, ...] = (gpu._survey, gpu._weigh, gpu._weigh_far, gpu._gather, gpu._cut)
SIZES = {"most": gpu.CANDIDATES, "few": gpu.FEW, "bounded": gpu.BOUNDED, "block": gpu.BLOCK}


def main() -> None:
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    for kernel in KERNELS:
        types = {name: TYPES[name] for name in kernel.arg_names}
        sizes = {name: SIZES[name] for name, kind in types.items() if kind == "constexpr"}
        source = ASTSource(fn=kernel, signature=types, constexprs=sizes)
        sys.stdout.write(triton.compile(source, target=target, options=gpu.OPTIONS).asm["ptx"])


if __name__ == "__main__":
    main()
