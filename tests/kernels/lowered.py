"""Run by ``test_nucleus_triton``: compile the GPU kernel for a chip that need not be there, and print its PTX."""

from __future__ import annotations

import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.nucleus import triton as gpu

TYPES = ("*fp32", "i64", "i64", "i32", "*i64", "*fp32", "*i64", "constexpr")


def main() -> None:
    kernel: Any = gpu._one_row
    source = ASTSource(
        fn=kernel, signature=dict(zip(kernel.arg_names, TYPES, strict=True)), constexprs={"block": gpu.BLOCK}
    )
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    sys.stdout.write(triton.compile(source, target=target, options=gpu.OPTIONS).asm["ptx"])


if __name__ == "__main__":
    main()
