"""Run by ``test_linear_triton``: compile the GPU kernel for a chip that need not be there, and print its PTX."""

from __future__ import annotations

import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.linear import triton as gpu

TYPES = ("*fp32", "*bf16", "*fp32", "i32", "i32", "i32", "constexpr", "constexpr", "constexpr")
BLOCK = {"block_rows": gpu.ROWS, "block_outputs": gpu.OUTPUTS, "block_inputs": gpu.INPUTS}


def main() -> None:
    kernel: Any = gpu._tile
    assert [one.name for one in kernel.params if one.do_not_specialize] == ["rows"], "one code for any number of rows"
    source = ASTSource(fn=kernel, signature=dict(zip(kernel.arg_names, TYPES, strict=True)), constexprs=BLOCK)
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    sys.stdout.write(triton.compile(source, target=target).asm["ptx"])


if __name__ == "__main__":
    main()
