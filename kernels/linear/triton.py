"""Packed linear layers on GPUs: a program for each tile of 16 rows by 64 outputs, which widens weights as it reads.

Every number of rows is computed by the same code in blocks of the same sizes, the sum of each block added to the last,
so that a row's result does not depend on its batch here either. Within a block the compiler chooses the order, and it
need not be the CPU kernel's: between devices the last bits may differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import triton
import triton.language as tl
from torch import Tensor

from kernels.linear.reference import Packed, check, narrowed

ROWS, OUTPUTS, INPUTS = 16, 64, 32
"""Of a block. Never fitted to the batch: another block could be summed in another order."""

F = TypeVar("F", bound=Callable[..., Any])


def _compiled(function: F) -> F:
    # Triton would compile anew for a single row, and for a number of them that 16 divides.
    return cast(F, triton.jit(do_not_specialize=["rows"])(function))


@_compiled
def _tile(
    inputs: tl.tensor,
    weight: tl.tensor,
    sums: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    outputs: tl.tensor,
    block_rows: tl.constexpr,
    block_outputs: tl.constexpr,
    block_inputs: tl.constexpr,
) -> None:
    blocks = tl.cdiv(rows, block_rows)
    # Programs next to each other read the same weights.
    row = (tl.program_id(0) % blocks) * block_rows + tl.arange(0, block_rows)
    output = (tl.program_id(0) // blocks) * block_outputs + tl.arange(0, block_outputs)
    lines = inputs + row[:, None].to(tl.int64) * width
    columns = weight + output[None, :].to(tl.int64) * width
    total = tl.zeros((block_rows, block_outputs), tl.float32)
    for first in range(0, width, block_inputs):
        place = first + tl.arange(0, block_inputs)
        line = tl.load(lines + place[None, :], mask=(row[:, None] < rows) & (place[None, :] < width), other=0.0)
        column = tl.load(columns + place[:, None], mask=(output[None, :] < outputs) & (place[:, None] < width), other=0)
        # As IEEE 754 has it: what is faster would round the inputs to 11 bits.
        total = tl.dot(line, column.to(tl.float32), total, input_precision="ieee")
    target = sums + row[:, None].to(tl.int64) * outputs + output[None, :]
    tl.store(target, total, mask=(row[:, None] < rows) & (output[None, :] < outputs))


def pack(weight: Tensor) -> Packed | None:
    """[outputs, inputs], an output's weights next to each other."""
    narrow = narrowed(weight.detach())
    return None if narrow is None else Packed(narrow.contiguous(), *weight.shape)


def apply(inputs: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    """As :func:`kernels.linear.apply`, on CUDA tensors, without waiting for the device."""
    check(inputs, packed)
    lines = inputs.contiguous()
    rows = lines.numel() // packed.inputs
    sums = lines.new_empty(*inputs.shape[:-1], packed.outputs)
    if rows:
        tiles = triton.cdiv(rows, ROWS) * triton.cdiv(packed.outputs, OUTPUTS)
        sizes = rows, packed.inputs, packed.outputs
        _tile[(tiles,)](lines, packed.data, sums, *sizes, ROWS, OUTPUTS, INPUTS)  # type: ignore[index]
    return sums if bias is None else sums.add_(bias)
