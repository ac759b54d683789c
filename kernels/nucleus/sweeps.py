"""Looking through a row on a CPU, for numba: what all of it weighs, and the few that are large.

Logits are compared as integer keys in the same order, so that NaN and infinities need no care and maxima vectorise.
A row's blocks know their largest key (``tops``): most are skipped by whoever looks for what is large.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.nucleus import reference
from kernels.nucleus.lanes import BLOCK, between, lowest, ones_in, whole_vectors
from kernels.nucleus.weights import (
    HALF,
    HALF_BITS,
    INFINITE,
    INT_MIN,
    LOG2E,
    MANTISSA_SHIFT,
    ONE,
    float_of,
    key_of,
    key_of_float,
    lower_half,
    scaled,
    upper_half,
    weight,
)
from kernels.threads import compiled

BINS = 1024
CANDIDATES = 4096
"""More than so many near the top are not looked at one by one."""
FLAT = 256.0
"""Where all weigh more than so many of the largest, a nucleus is thousands, and not looked for at the top."""
NOTHING_BITS = np.int32(np.float32(-np.inf).view(np.int32))
_UNIT = float(1 << reference.UNIT_BITS)

_FAR = np.float32(20.0)
"""How far below the largest quotient what a block weighs is no longer looked at: 64 times e^-20 at most."""
_FAR_WEIGHT = 1.01 * math.exp(-20.0)
_FURTHEST = np.float32(-120.0)
_Q0, _Q1, _Q2, _Q3, _Q4 = (
    np.float32(one) for one in (9.5701005924e-3, 5.5917860216e-2, 2.4024744860e-1, 6.9312181476e-1, 9.9999926144e-1)
)
"""2^r for abs(r) <= 1/2, highest power first, fitted for the least relative error: 2.6e-6."""
_ROUGHLY = 2.0**-16
"""Twice what that, adding up in float32 and leaving out what weighs nothing come to, relatively."""

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


@compiled
def largest(bits: Ints, tops: Ints) -> Any:
    """The largest key of each block into ``tops``; returned is the largest of all, above +inf's where a NaN is."""
    top, worst = np.int32(INT_MIN), np.int32(0)
    for block in range(len(tops)):
        part = bits[block * BLOCK : (block + 1) * BLOCK]
        best, size = np.int32(INT_MIN), np.int32(0)
        for place in range(len(part)):
            best = max(best, key_of(part[place]))
        tops[block] = best
        top = max(top, best)
        # Two sweeps over what is in the cache anyway: LLVM does not vectorise both maxima in one.
        for place in range(len(part)):
            size = max(size, np.int32(part[place] & np.int32(0x7FFFFFFF)))
        worst = max(worst, size)
    return np.int64(worst if worst > INFINITE else top)


@compiled
def within(part: Ints, floor: Any, ceiling: Any) -> Any:
    """Of a block's bits, those with a key from ``floor`` up to and without ``ceiling``: a one for each."""
    if len(part) == BLOCK:
        return between(part, floor, ceiling)
    ones = np.uint64(0)
    for place in range(len(part)):
        if floor <= key_of(part[place]) < ceiling:
            ones |= np.uint64(1) << np.uint64(place)
    return ones


@compiled
def reaching(edge: Any, temperature: Any) -> Any:
    """A key that no logit is below which, divided by the temperature, has the key ``edge`` or a larger one."""
    if temperature == ONE:
        return edge
    product = np.float64(float_of(edge)) * np.float64(temperature)
    return key_of_float(np.float32(product - abs(product) * 2.0**-20 - 1e-40 * np.float64(temperature)))


@compiled
def likeliest(bits: Ints, tops: Ints) -> Any:
    """The first place of the largest."""
    top = tops[0]
    for block in range(len(tops)):
        top = max(top, tops[block])
    block = 0
    while tops[block] < top:
        block += 1
    return block * BLOCK + np.int64(lowest(within(bits[block * BLOCK : (block + 1) * BLOCK], top, top + 1)))


@partial(compiled, fastmath={"contract", "reassoc"})
def _about(logits: Floats, tops: Ints, far: Any, top: Any, steepness: Any) -> Any:
    """About what all weigh, in units of the largest, and how many blocks were left out: those without a key of ``far``.

    Half the precision of a weight, for a quarter of its time. Above ``FLAT`` it has not looked at the rest.
    """
    whole_vectors()
    total, skipped = 0.0, 0
    for block in range(len(tops)):
        if tops[block] < far:
            skipped += 1
            continue
        part = logits[block * BLOCK : (block + 1) * BLOCK]
        mass = np.float32(0.0)
        for place in range(len(part)):
            octaves = (part[place] - top) * steepness
            octaves = octaves if octaves > _FURTHEST else _FURTHEST
            halvings = np.int32(HALF - octaves)
            rest = octaves + np.float32(halvings)
            power = (((_Q0 * rest + _Q1) * rest + _Q2) * rest + _Q3) * rest + _Q4
            mass += np.int32(np.float32(power).view(np.int32) - (halvings << MANTISSA_SHIFT)).view(np.float32)
        total += np.float64(mass)
        if total > FLAT:
            break
    return total, skipped


@compiled
def roughly(logits: Floats, tops: Ints, raw_top: Any, temperature: Any) -> Any:
    """What all quotients weigh: at least so much, and at most so much. Zero for a flat row, and where it is not known.

    Quotients are rounded, and the logits here are not divided: down to 32 below the largest that moves an exponent by
    (abs(top) + 80) * 2^-23 at most. Twice that is reckoned with, and twice what the sum itself is wrong by.
    """
    top = np.float32(raw_top / temperature)
    wrong = _ROUGHLY + (abs(top) + 80.0) * 2.0**-22
    far = key_of_float(np.float32(raw_top - _FAR * temperature))
    total, skipped = _about(logits, tops, far, raw_top, np.float32(LOG2E / temperature))
    if total > FLAT or not wrong < 0.01:
        return np.int64(0), np.int64(0)
    most = total * (1.0 + wrong) + skipped * (BLOCK * _FAR_WEIGHT)
    return np.int64(total * (1.0 - wrong) * _UNIT), np.int64(most * _UNIT)


@compiled
def masses(logits: Floats, tops: Ints, floor: Any, ceiling: Any, top: Any) -> Any:
    """The weight of all whose key is at least ``floor``, and of those among them at ``ceiling`` and above."""
    whole_vectors()
    total, above = np.int64(0), np.int64(0)
    least, most = float_of(floor), float_of(ceiling)
    for block in range(len(tops)):
        if tops[block] < floor:
            continue
        part = logits[block * BLOCK : (block + 1) * BLOCK]
        uppers, lowers, uppers_above, lowers_above = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
        for place in range(len(part)):
            halves = scaled(part[place], top)
            upper = upper_half(halves)
            lower = lower_half(halves, upper)
            uppers = np.int32(uppers + (upper if part[place] >= least else np.int32(0)))
            lowers = np.int32(lowers + (lower if part[place] >= least else np.int32(0)))
            uppers_above = np.int32(uppers_above + (upper if part[place] >= most else np.int32(0)))
            lowers_above = np.int32(lowers_above + (lower if part[place] >= most else np.int32(0)))
        total += (np.int64(uppers) << HALF_BITS) + np.int64(lowers)
        above += (np.int64(uppers_above) << HALF_BITS) + np.int64(lowers_above)
    return total, above


@compiled
def gather(bits: Ints, tops: Ints, floor: Any, ceiling: Any, keys: Ints) -> Any:
    """The keys from ``floor`` up to and without ``ceiling`` into ``keys``; returned is how many."""
    found = 0
    for block in range(len(tops)):
        if tops[block] >= floor:
            part = bits[block * BLOCK : (block + 1) * BLOCK]
            ones = within(part, floor, ceiling)
            while ones:
                keys[found] = key_of(part[lowest(ones)])
                found += 1
                ones &= ones - np.uint64(1)
    return found


@compiled
def equals(bits: Ints, tops: Ints, key: Any) -> Any:
    """How many have this key."""
    found = 0
    for block in range(len(tops)):
        if tops[block] >= key:
            found += ones_in(within(bits[block * BLOCK : (block + 1) * BLOCK], key, key + 1))
    return found


@compiled
def candidates(logits: Floats, bits: Ints, tops: Ints, temperature: Any, edge: Any, keys: Ints) -> Any:
    """The keys of ``edge`` and above, after dividing, into ``keys``; returned is how many, or above ``CANDIDATES``."""
    raw = reaching(edge, temperature)
    found = 0
    for block in range(len(tops)):
        if tops[block] >= raw and found <= CANDIDATES:
            part = logits[block * BLOCK : (block + 1) * BLOCK]
            ones = within(bits[block * BLOCK : (block + 1) * BLOCK], raw, np.int64(INFINITE))
            while ones:
                key = np.int32(key_of_float(part[lowest(ones)] / temperature))
                keys[found] = key
                found += key >= edge
                ones &= ones - np.uint64(1)
    return found


@compiled
def weigh(keys: Ints, found: int, top: Any, weights: Longs) -> Any:
    whole_vectors()
    total = np.int64(0)
    for place in range(found):
        weights[place] = weight(float_of(keys[place]), top)
        total += weights[place]
    return total


@compiled
def select(keys: Ints, weights: Longs, found: int, weighted: bool, need: Any, bins: Longs) -> Any:
    """The key at which the weight, from the largest key down, reaches ``need``; the weight above; how many have it.

    ``need`` is at least 1 and at most the weight of all. ``keys`` and ``weights`` are used up.
    """
    above = np.int64(0)
    while True:
        least, largest = keys[0], keys[0]
        for place in range(found):
            least, largest = min(least, keys[place]), max(largest, keys[place])
        low, high = np.int64(least), np.int64(largest)
        if low == high:
            return low, above, found
        shift = np.int64(0)
        while (high - low) >> shift >= BINS:
            shift += 1
        bins[:] = 0
        for place in range(found):
            bins[(np.int64(keys[place]) - low) >> shift] += weights[place] if weighted else np.int64(1)
        chosen = (high - low) >> shift
        while above + bins[chosen] < need:
            above += bins[chosen]
            chosen -= 1
        kept = 0
        for place in range(found):
            key, own = keys[place], weights[place]
            keys[kept], weights[kept] = key, own
            kept += (np.int64(key) - low) >> shift == chosen
        found = kept


@compiled
def drop_below(bits: Ints, tops: Ints, floor: Any) -> None:
    for block in range(len(tops)):
        part = bits[block * BLOCK : (block + 1) * BLOCK]
        if tops[block] < floor:
            part[:] = NOTHING_BITS
        else:
            for place in range(len(part)):
                part[place] = part[place] if key_of(part[place]) >= floor else NOTHING_BITS


@compiled
def drop_first(bits: Ints, tops: Ints, key: Any, number: int) -> None:
    """The first ``number`` of those with this key."""
    for block in range(len(tops)):
        if number == 0:
            return
        if tops[block] >= key:
            for place in range(block * BLOCK, min((block + 1) * BLOCK, len(bits))):
                if number > 0 and key_of(bits[place]) == key:
                    bits[place] = NOTHING_BITS
                    number -= 1
