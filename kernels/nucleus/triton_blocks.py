"""What the GPU kernels of the nucleus do with a logit, a block of them, or a sum: inlined wherever it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import triton
import triton.language as tl

from kernels.nucleus import reference

_MAGNITUDE = tl.constexpr(0x7FFFFFFF)
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


def compiled(function: F) -> F:
    return cast(F, triton.jit(do_not_specialize=["parts"])(function))


@compiled
def keys_of(logits: tl.tensor) -> tl.tensor:
    """Integers in the order of the floats; -0.0 and 0.0 have the same."""
    bits = logits.to(tl.int32, bitcast=True)
    return tl.where(bits >= 0, bits, -(bits & _MAGNITUDE))


@compiled
def logits_of(keys: tl.tensor) -> tl.tensor:
    """The floats that have these keys."""
    return tl.where(keys >= 0, keys, -keys | ~_MAGNITUDE).to(tl.float32, bitcast=True)


@compiled
def weights_of(logits: tl.tensor, top: tl.tensor) -> tl.tensor:
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


@compiled
def read_block(row: tl.tensor, step: tl.tensor, first: tl.tensor, end: tl.tensor, block: tl.constexpr) -> tl.tensor:
    """Logits from column ``first`` on; -inf from column ``end`` on."""
    columns = first + tl.arange(0, block)
    return tl.load(row + columns.to(tl.int64) * step, mask=columns < end, other=-float("inf"))


@compiled
def needed(total: tl.tensor, quota: tl.tensor) -> tl.tensor:
    """What the kept tokens weigh at least."""
    dropped = quota * (total >> _QUOTA_BITS) + ((quota * (total & _QUOTA_MASK)) >> _QUOTA_BITS)
    return tl.maximum(total - dropped, 1)


@compiled
def spared_of(equal: tl.tensor, above: tl.tensor, need: tl.tensor, each: tl.tensor) -> tl.tensor:
    """How many of ``equal`` tokens of the same weight are not needed."""
    return tl.maximum(equal - (need - above + each - 1) // each, 0)


@compiled
def drop(
    row: tl.tensor,
    step: tl.tensor,
    begin: tl.tensor,
    end: tl.tensor,
    floor: tl.tensor,
    spared: tl.tensor,
    passed: tl.tensor,
    block: tl.constexpr,
) -> None:
    """What is below ``floor``, and the first ``spared`` of those equal to it, become -inf.

    ``passed`` of those that are equal come before column ``begin``.
    """
    for first in range(begin, end, block):
        columns = first + tl.arange(0, block)
        keys = keys_of(read_block(row, step, first, end, block))
        drop = keys < floor
        if passed < spared:
            equal = (keys == floor).to(tl.int32)
            drop |= (equal > 0) & (passed + tl.cumsum(equal, 0) <= spared)
            passed += tl.sum(equal, 0)
        tl.store(row + columns.to(tl.int64) * step, -float("inf"), mask=(columns < end) & drop)
