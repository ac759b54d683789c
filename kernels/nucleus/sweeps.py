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
SPARE = 4
"""Of a block's keys so many are gathered whether they are there or not."""
CANDIDATES = 4096
"""More than so many near the top are not looked at one by one."""
FLAT = 128.0
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

BANDS = 3
"""Between so many edges a flat row's nucleus is looked for to end."""
CLOSELY = 8 * 2.0**-24
"""Relatively, more than the five roundings that a weight meets where sixteen are added up in float32, in pairs."""
_LANES = 256
_CHUNK = 4 * _LANES
_SCALED_UNIT = float(1 << (reference.UNIT_BITS - HALF_BITS))
_NO_WEIGHT = np.float32(0.0)

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
def _weights_of(part: Floats, least: Any, top: Any, weights: Floats) -> None:
    whole_vectors()
    for place in range(len(part)):
        weights[place] = scaled(part[place], top) if part[place] >= least else _NO_WEIGHT


@compiled
def _four_below(part: Floats, weights: Floats, edge: Any, place: int) -> Any:
    second, third, fourth = place + _LANES, place + 2 * _LANES, place + 3 * _LANES
    one = weights[place] if part[place] < edge else _NO_WEIGHT
    one += weights[second] if part[second] < edge else _NO_WEIGHT
    other = weights[third] if part[third] < edge else _NO_WEIGHT
    other += weights[fourth] if part[fourth] < edge else _NO_WEIGHT
    return one + other


@compiled
def _by_four(
    part: Floats, weights: Floats, edges: Floats, every: Floats, below: Floats, lower: Floats, lowest: Floats
) -> None:
    """The sums of every four weights, and of those in each four that are below the first, second and third edge."""
    whole_vectors()
    first, second, third = edges[0], edges[1], edges[2]
    for place in range(_LANES):
        one = weights[place] + weights[place + _LANES]
        every[place] = one + (weights[place + 2 * _LANES] + weights[place + 3 * _LANES])
        below[place] = _four_below(part, weights, first, place)
        lower[place] = _four_below(part, weights, second, place)
        lowest[place] = _four_below(part, weights, third, place)


@partial(compiled, fastmath={"reassoc"})
def _sum(parts: Floats) -> Any:
    whole_vectors()
    total, quarter = 0.0, _LANES // 4
    for place in range(quarter):
        one = parts[place] + parts[place + quarter]
        total += np.float64(one + (parts[place + 2 * quarter] + parts[place + 3 * quarter]))
    return total


@compiled
def closely(logits: Floats, floor: Any, edges: Floats, top: Any) -> Any:
    """Of all with a key of ``floor`` or more, nearly what they weigh; and those of them below each of the edges.

    Weights are the exact ones before they are rounded down to units, and added up in float32 by sixteen, in pairs.
    """
    least = float_of(floor)
    part, weights = np.full(_CHUNK, np.float32(-np.inf)), np.zeros(_CHUNK, np.float32)
    sums, masses = np.empty((1 + BANDS, _LANES), np.float32), np.zeros(1 + BANDS)
    for first in range(0, len(logits), _CHUNK):
        whole = logits[first : first + _CHUNK]
        if len(whole) < _CHUNK:
            part[: len(whole)] = whole
            weights[len(whole) :] = _NO_WEIGHT
            whole = part
        _weights_of(whole[: len(logits) - first], least, top, weights)
        _by_four(whole, weights, edges, sums[0], sums[1], sums[2], sums[3])
        for of in range(1 + BANDS):
            masses[of] += _sum(sums[of])
    return masses[0] * _SCALED_UNIT, masses[1:] * _SCALED_UNIT


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
    """The keys from ``floor`` up to and without ``ceiling`` into ``keys``; returned is how many.

    Blocks have a few each. That many are taken whether they are there or not: a guess at how many there are would
    mostly be wrong, which takes a CPU as long as all of them. ``keys`` has room for ``SPARE`` more.
    """
    found = 0
    for block in range(len(tops)):
        if tops[block] >= floor:
            part = bits[block * BLOCK : (block + 1) * BLOCK]
            ones = within(part, floor, ceiling)
            last, end = np.uint64(len(part) - 1), found + ones_in(ones)
            for spare in range(SPARE):
                keys[found + spare] = key_of(part[lowest(ones | np.uint64(1) << last)])
                ones &= ones - np.uint64(1)
            found += SPARE
            while ones:
                keys[found] = key_of(part[lowest(ones)])
                found += 1
                ones &= ones - np.uint64(1)
            found = end
    return found


@compiled
def others(bits: Ints, tops: Ints, floor: Any, key: Any, keys: Ints) -> Any:
    """How many have this key, and the keys of ``floor`` and above that are not it into ``keys``.

    Also returned is how many these are, or that there are more than ``CANDIDATES``.
    """
    equal, found = 0, 0
    for block in range(len(tops)):
        if tops[block] >= floor and found <= CANDIDATES:
            part = bits[block * BLOCK : (block + 1) * BLOCK]
            ones = within(part, key, key + 1)
            equal += ones_in(ones)
            ones ^= within(part, floor, np.int64(INFINITE))
            while ones:
                keys[found] = key_of(part[lowest(ones)])
                found += 1
                ones &= ones - np.uint64(1)
    return equal, found


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
            part = bits[block * BLOCK : (block + 1) * BLOCK]
            ones = within(part, key, key + 1)
            found = min(ones_in(ones), number)
            number -= found
            if found == BLOCK:
                part[:] = NOTHING_BITS
                found = 0
            for _ in range(found):
                part[lowest(ones)] = NOTHING_BITS
                ones &= ones - np.uint64(1)
