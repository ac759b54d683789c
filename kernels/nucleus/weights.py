"""What a token weighs, for numba: :func:`kernels.nucleus.reference.weights` one at a time, and keys to compare by."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.nucleus import reference
from kernels.threads import compiled

INFINITE = 0x7F800000
"""The key of +inf; a NaN's is above."""
NOTHING = -INFINITE
"""The key of -inf."""
INT_MIN = -(1 << 31)

LOG2E = np.float32(reference.LOG2E)
HALF, ONE = np.float32(0.5), np.float32(1.0)
MANTISSA_SHIFT = 23
HALF_BITS = reference.UNIT_BITS // 2
_LEAST = np.float32(reference.LEAST)
_LN2_HIGH = np.float32(reference.LN2_HIGH)
_LN2_LOW = np.float32(reference.LN2_LOW)
_P0, _P1, _P2, _P3, _P4, _P5 = (np.float32(coefficient) for coefficient in reference.POLYNOMIAL)
_HALF_UNIT = np.float32(1 << HALF_BITS)
_QUOTA_BITS = reference.QUOTA_BITS
_QUOTA_MASK = (1 << _QUOTA_BITS) - 1


@compiled
def key_of(bits: Any) -> Any:
    """An integer in the order of the floats with these bits; -0.0 and 0.0 have the same."""
    return bits if bits >= 0 else np.int32(INT_MIN - bits)


@compiled
def float_of(key: Any) -> Any:
    return np.int32(key if key >= 0 else INT_MIN - key).view(np.float32)


@compiled
def key_of_float(value: Any) -> Any:
    return np.int64(key_of(np.float32(value).view(np.int32)))


@compiled
def scaled(logit: Any, top: Any) -> Any:
    """Its weight as :func:`kernels.nucleus.reference.weights` has it before rounding, in units of 2^22: exact.

    There a mantissa is an integer. All 24 bits of a power between 1/2 and 2 are in it, so here only its exponent moves.
    """
    distance = logit - top
    distance = distance if distance > _LEAST else _LEAST
    halvings = np.int32(HALF - distance * LOG2E)
    steps = np.float32(halvings)
    rest = (distance + steps * _LN2_HIGH) + steps * _LN2_LOW
    power = _P0 * rest + _P1
    power = power * rest + _P2
    power = power * rest + _P3
    power = power * rest + _P4
    power = power * rest + _P5
    power = (power * (rest * rest) + rest) + ONE
    exponent = (HALF_BITS - halvings) << MANTISSA_SHIFT
    return np.int32(np.float32(power).view(np.int32) + exponent).view(np.float32)


@compiled
def upper_half(scaled: Any) -> Any:
    """A weight's bits above the lower 22. In two halves, 64 weights add up in 32 bits: twice as many at a time."""
    return np.int32(scaled)


@compiled
def lower_half(scaled: Any, upper: Any) -> Any:
    return np.int32((scaled - np.float32(upper)) * _HALF_UNIT)


@compiled
def weight(logit: Any, top: Any) -> Any:
    halves = scaled(logit, top)
    upper = upper_half(halves)
    return (np.int64(upper) << HALF_BITS) + np.int64(lower_half(halves, upper))


@compiled
def needed(total: Any, quota: Any) -> Any:
    """How much of ``total`` must be kept where ``quota`` of it may be dropped: exact, and at least 1."""
    dropped = quota * (total >> _QUOTA_BITS) + ((quota * (total & _QUOTA_MASK)) >> _QUOTA_BITS)
    return max(total - dropped, np.int64(1))
