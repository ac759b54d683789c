"""The nucleus on GPUs: one program a row, which finds each threshold by bisection over the keys of the logits.

A key is an integer in the order of the floats, so that 32 sweeps over the row, each a masked sum of integers, find any
threshold exactly. The row stays in the cache meanwhile; nothing is sorted, and nothing but the result is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.nucleus import reference

BLOCK = 4096
OPTIONS = {"num_warps": 16, "enable_fp_fusion": False}
"""A contracted product and sum would round once instead of twice, and the weights would be others."""

_MAGNITUDE = tl.constexpr(0x7FFFFFFF)
_INFINITE = tl.constexpr(0x7F800000)
_LEAST = tl.constexpr(reference.LEAST)
_LOG2E = tl.constexpr(reference.LOG2E)
_LN2_HIGH = tl.constexpr(reference.LN2_HIGH)
_LN2_LOW = tl.constexpr(reference.LN2_LOW)
_P0, _P1, _P2, _P3, _P4, _P5 = (tl.constexpr(coefficient) for coefficient in reference.POLYNOMIAL)
_MANTISSA = tl.constexpr(float(1 << reference.MANTISSA_BITS))
_SHIFT = tl.constexpr(reference.UNIT_BITS - reference.MANTISSA_BITS)
_QUOTA_BITS = tl.constexpr(reference.QUOTA_BITS)
_QUOTA_MASK = tl.constexpr((1 << reference.QUOTA_BITS) - 1)

F = TypeVar("F", bound=Callable[..., Any])


def _compiled(function: F) -> F:
    return cast(F, triton.jit(function))


@_compiled
def _keys(logits: tl.tensor) -> tl.tensor:
    """Integers in the order of the floats; -0.0 and 0.0 have the same."""
    bits = logits.to(tl.int32, bitcast=True)
    return tl.where(bits >= 0, bits, -(bits & _MAGNITUDE))


@_compiled
def _weights(logits: tl.tensor, top: tl.tensor) -> tl.tensor:
    """As :func:`kernels.nucleus.reference.weights`, operation by operation."""
    distance = tl.maximum(logits - top, _LEAST)
    halvings = (0.5 - distance * _LOG2E).to(tl.int32)
    steps = halvings.to(tl.float32)
    rest = (distance + steps * _LN2_HIGH) + steps * _LN2_LOW
    power = rest * _P0 + _P1
    power = power * rest + _P2
    power = power * rest + _P3
    power = power * rest + _P4
    power = power * rest + _P5
    power = (power * (rest * rest) + rest) + 1.0
    mantissa = (power * _MANTISSA).to(tl.int64)
    return (mantissa << _SHIFT) >> halvings.to(tl.int64)


@_compiled
def _block(row: tl.tensor, step: tl.tensor, first: tl.tensor, size: tl.tensor, block: tl.constexpr) -> tl.tensor:
    """Logits from column ``first`` on; -inf beyond the row's end."""
    columns = first + tl.arange(0, block)
    return tl.load(row + columns.to(tl.int64) * step, mask=columns < size, other=-float("inf"))


@_compiled
def _amount(
    row: tl.tensor,
    step: tl.tensor,
    size: tl.tensor,
    key: tl.tensor,
    top: tl.tensor,
    weighted: tl.constexpr,
    block: tl.constexpr,
) -> tl.tensor:
    """How many keys are at least ``key``, or what they weigh."""
    sums = tl.zeros((block,), tl.int64)
    for first in range(0, size, block):
        logits = _block(row, step, first, size, block)
        if weighted:
            sums += tl.where(_keys(logits) >= key, _weights(logits, top), 0)
        else:
            sums += (_keys(logits) >= key).to(tl.int64)
    return tl.sum(sums, 0)


@_compiled
def _bisect(
    row: tl.tensor,
    step: tl.tensor,
    size: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    need: tl.tensor,
    top: tl.tensor,
    weighted: tl.constexpr,
    block: tl.constexpr,
) -> tl.tensor:
    """The largest key from ``low`` to ``high`` with an amount of at least ``need``; ``low`` where none has."""
    while low < high:
        middle = low + (high - low + 1) // 2
        enough = _amount(row, step, size, middle, top, weighted, block) >= need
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle - 1)
    return low


@_compiled
def _drop(
    row: tl.tensor, step: tl.tensor, size: tl.tensor, floor: tl.tensor, spared: tl.tensor, block: tl.constexpr
) -> None:
    """What is below ``floor``, and the first ``spared`` of those equal to it, become -inf."""
    passed = tl.zeros((), tl.int64)
    for first in range(0, size, block):
        columns = first + tl.arange(0, block)
        logits = _block(row, step, first, size, block)
        keys = _keys(logits)
        equal = (keys == floor).to(tl.int64)
        drop = (keys < floor) | ((equal > 0) & (passed + tl.cumsum(equal, 0) <= spared))
        tl.store(row + columns.to(tl.int64) * step, -float("inf"), mask=(columns < size) & drop)
        passed += tl.sum(equal, 0)


@_compiled
def _one_row(
    logits: tl.tensor,
    stride: tl.tensor,
    step: tl.tensor,
    size: tl.tensor,
    counts: tl.tensor,
    gaps: tl.tensor,
    quotas: tl.tensor,
    block: tl.constexpr,
) -> None:
    index = tl.program_id(0).to(tl.int64)
    row = logits + index * stride
    count, gap, quota = tl.load(counts + index), tl.load(gaps + index), tl.load(quotas + index)
    if (count > 0) | (gap > -float("inf")) | (quota > 0):
        tops = tl.full((block,), -float("inf"), tl.float32)
        faults = tl.zeros((block,), tl.int32)
        for first in range(0, size, block):
            part = _block(row, step, first, size, block)
            tops = tl.maximum(tops, part)
            magnitude = part.to(tl.int32, bitcast=True) & _MAGNITUDE
            faults = tl.maximum(faults, ((magnitude > _INFINITE) | (part == float("inf"))).to(tl.int32))
        top = tl.max(tops, 0)
        if (tl.max(faults, 0) == 0) & (top > -float("inf")):
            high = _keys(top).to(tl.int64)
            floor = _keys(top + gap).to(tl.int64)
            spared = tl.zeros((), tl.int64)
            if count > 0:
                floor = _bisect(row, step, size, floor, high, count, top, False, block)
            if quota > 0:
                total = _amount(row, step, size, floor, top, True, block)
                dropped = quota * (total >> _QUOTA_BITS) + ((quota * (total & _QUOTA_MASK)) >> _QUOTA_BITS)
                need = tl.maximum(total - dropped, 1)
                floor = _bisect(row, step, size, floor, high, need, top, True, block)
                above = _amount(row, step, size, floor + 1, top, True, block)
                equal = _amount(row, step, size, floor, top, False, block)
                equal -= _amount(row, step, size, floor + 1, top, False, block)
                each = (_amount(row, step, size, floor, top, True, block) - above) // equal
                spared = tl.maximum(equal - (need - above + each - 1) // each, 0)
            _drop(row, step, size, floor, spared, block)


def apply(
    logits: Tensor, *, top_k: Tensor | None = None, top_p: Tensor | None = None, min_p: Tensor | None = None
) -> Tensor:
    """As :func:`kernels.nucleus.apply`, on CUDA tensors, without waiting for the device."""
    if logits.dtype != torch.float32:
        raise TypeError(f"logits are {logits.dtype}, not float32")
    found = reference.limits(logits, top_k, top_p, min_p)
    rows, size = logits.shape
    if rows and size:
        block = min(BLOCK, triton.next_power_of_2(size))
        _one_row[(rows,)](logits, *logits.stride(), size, *found, block, **OPTIONS)  # type: ignore[index]
    return logits
