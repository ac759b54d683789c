"""The nucleus on CPUs: compiled by numba, vectorised along a row, parallel over rows.

Logits are compared as integer keys in the same order, so that NaN and infinities need no care and maxima vectorise.
A row's blocks know their largest key: most are then skipped, by whoever looks for what is large. Selecting is a
histogram over ever narrower ranges of keys, three or four at most for any input.

All compiled code but that of :mod:`kernels.nucleus.lanes` is in this file, as numba's cache is valid until this file
changes.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import get_thread_id, prange
from numpy.typing import NDArray
from torch import Tensor

from kernels.nucleus import reference
from kernels.nucleus.lanes import BLOCK, between, lowest, whole_vectors
from kernels.threads import Launching, compiled, threads, warn_of_few

SAMPLED = 32
"""One logit in so many is looked at to guess where the nucleus of a flat row ends."""
BINS = 1024
_BIN_BITS = 10
_INT_MIN = -(1 << 31)
_INFINITE = 0x7F800000
_NOTHING = -_INFINITE
"""The key of -inf."""
_NOTHING_BITS = np.int32(np.float32(-np.inf).view(np.int32))

_LEAST = np.float32(reference.LEAST)
_LOG2E = np.float32(reference.LOG2E)
_LN2_HIGH = np.float32(reference.LN2_HIGH)
_LN2_LOW = np.float32(reference.LN2_LOW)
_P0, _P1, _P2, _P3, _P4, _P5 = (np.float32(coefficient) for coefficient in reference.POLYNOMIAL)
_HALF, _ONE, _MANTISSA = np.float32(0.5), np.float32(1.0), np.float32(1 << reference.MANTISSA_BITS)
_HALF_BITS = reference.UNIT_BITS // 2
_HALF_UNIT = np.float32(1 << _HALF_BITS)
_MANTISSA_SHIFT = 23
_SCALE = 127 + reference.UNIT_BITS - reference.MANTISSA_BITS - _HALF_BITS
"""The exponent, as a float32 has it, of what a mantissa is multiplied by to be in units of 2^22."""
_QUOTA_BITS = reference.QUOTA_BITS
_QUOTA_MASK = (1 << _QUOTA_BITS) - 1

_REACHES = (np.float32(3.0), np.float32(6.0), np.float32(12.0), np.float32(np.inf))
"""How far below the largest logit a nucleus is looked for, one after the other."""

_NEAR = np.float32(14.0)
"""How far below the largest logit a block is weighed. Of those below, how much it can be at most is enough to know."""

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float32]


class _Batch(NamedTuple):
    """The logits, as floats and as their bits, flat from the first row's first to the last row's last."""

    logits: Floats
    bits: Ints
    stride: int
    size: int
    counts: Longs
    gaps: Floats
    quotas: Longs


class _Scratch(NamedTuple):
    """What each thread works in: its row of each array."""

    tops: Ints
    keys: Ints
    weights: Longs
    bins: Longs


@compiled
def _key(bits: Any) -> Any:
    """An integer in the order of the floats with these bits; -0.0 and 0.0 have the same."""
    return bits if bits >= 0 else np.int32(_INT_MIN - bits)


@compiled
def _float(key: Any) -> Any:
    return np.int32(key if key >= 0 else _INT_MIN - key).view(np.float32)


@compiled
def _scaled(logit: Any, top: Any) -> Any:
    """Its weight as :func:`kernels.nucleus.reference.weights` has it before rounding, in units of 2^22: exact."""
    distance = logit - top
    distance = distance if distance > _LEAST else _LEAST
    halvings = np.int32(_HALF - distance * _LOG2E)
    steps = np.float32(halvings)
    rest = (distance + steps * _LN2_HIGH) + steps * _LN2_LOW
    power = _P0 * rest + _P1
    power = power * rest + _P2
    power = power * rest + _P3
    power = power * rest + _P4
    power = power * rest + _P5
    power = (power * (rest * rest) + rest) + _ONE
    return np.float32(np.int32(power * _MANTISSA)) * np.int32((_SCALE - halvings) << _MANTISSA_SHIFT).view(np.float32)


@compiled
def _upper(scaled: Any) -> Any:
    """A weight's bits above the lower 22. In two halves, 64 weights add up in 32 bits: twice as many at a time."""
    return np.int32(scaled)


@compiled
def _lower(scaled: Any, upper: Any) -> Any:
    return np.int32((scaled - np.float32(upper)) * _HALF_UNIT)


@compiled
def _weight(logit: Any, top: Any) -> Any:
    scaled = _scaled(logit, top)
    upper = _upper(scaled)
    return (np.int64(upper) << _HALF_BITS) + np.int64(_lower(scaled, upper))


@compiled
def _largest(bits: Ints, tops: Ints) -> Any:
    """The largest key of each block into ``tops``; returned is the largest of all, above +inf's where a NaN is."""
    top, worst = np.int32(_INT_MIN), np.int32(0)
    for block in range(len(tops)):
        part = bits[block * BLOCK : (block + 1) * BLOCK]
        best, size = np.int32(_INT_MIN), np.int32(0)
        for place in range(len(part)):
            best = max(best, _key(part[place]))
        tops[block] = best
        top = max(top, best)
        # Two sweeps over what is in the cache anyway: LLVM does not vectorise both maxima in one.
        for place in range(len(part)):
            size = max(size, np.int32(part[place] & np.int32(0x7FFFFFFF)))
        worst = max(worst, size)
    return worst if worst > _INFINITE else top


@compiled
def _masses(logits: Floats, tops: Ints, floor: Any, near: Any, ceiling: Any, top: Any) -> Any:
    """The weight of all whose key is at least ``floor``, and of those among them at ``ceiling`` and above.

    Blocks without a key of ``near`` or above are left out. Third is what they weigh at most.
    """
    whole_vectors()
    total, above, doubt = np.int64(0), np.int64(0), np.int64(0)
    least, most = _float(floor), _float(ceiling)
    for block in range(len(tops)):
        if tops[block] >= near:
            part = logits[block * BLOCK : (block + 1) * BLOCK]
            uppers, lowers, uppers_above, lowers_above = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
            for place in range(len(part)):
                scaled = _scaled(part[place], top)
                upper = _upper(scaled)
                lower = _lower(scaled, upper)
                uppers = np.int32(uppers + (upper if part[place] >= least else np.int32(0)))
                lowers = np.int32(lowers + (lower if part[place] >= least else np.int32(0)))
                uppers_above = np.int32(uppers_above + (upper if part[place] >= most else np.int32(0)))
                lowers_above = np.int32(lowers_above + (lower if part[place] >= most else np.int32(0)))
            total += (np.int64(uppers) << _HALF_BITS) + np.int64(lowers)
            above += (np.int64(uppers_above) << _HALF_BITS) + np.int64(lowers_above)
        elif tops[block] >= floor:
            heaviest = _weight(_float(tops[block]), top)
            # A little more, since where it rounds a weight may be less than a smaller logit's.
            doubt += BLOCK * (heaviest + (heaviest >> 8) + 1)
    return total, above, doubt


@compiled
def _gather(bits: Ints, tops: Ints, floor: Any, ceiling: Any, keys: Ints) -> Any:
    """The keys from ``floor`` up to and without ``ceiling`` into ``keys``; returned is how many."""
    found: Any = 0
    for block in range(len(tops)):
        if tops[block] < floor:
            continue
        part = bits[block * BLOCK : (block + 1) * BLOCK]
        if len(part) == BLOCK:
            ones = between(part, floor, ceiling)
            while ones:
                keys[found] = _key(part[lowest(ones)])
                found += 1
                ones &= ones - np.uint64(1)
        else:
            for place in range(len(part)):
                key = _key(part[place])
                keys[found] = key
                found += floor <= key < ceiling
    return found


@compiled
def _weigh(keys: Ints, found: int, top: Any, weights: Longs) -> Any:
    whole_vectors()
    total = np.int64(0)
    for place in range(found):
        weights[place] = _weight(_float(keys[place]), top)
        total += weights[place]
    return total


@compiled
def _select(keys: Ints, weights: Longs, found: int, weighted: bool, need: Any, bins: Longs) -> Any:
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
            key, weight = keys[place], weights[place]
            keys[kept], weights[kept] = key, weight
            kept += (np.int64(key) - low) >> shift == chosen
        found = kept


@compiled
def _drop_below(bits: Ints, tops: Ints, floor: Any) -> None:
    for block in range(len(tops)):
        part = bits[block * BLOCK : (block + 1) * BLOCK]
        if tops[block] < floor:
            part[:] = _NOTHING_BITS
        else:
            for place in range(len(part)):
                part[place] = part[place] if _key(part[place]) >= floor else _NOTHING_BITS


@compiled
def _drop_first(bits: Ints, tops: Ints, key: Any, number: int) -> None:
    """The first ``number`` of those with this key."""
    for block in range(len(tops)):
        if number == 0:
            return
        if tops[block] >= key:
            for place in range(block * BLOCK, min((block + 1) * BLOCK, len(bits))):
                if number > 0 and _key(bits[place]) == key:
                    bits[place] = _NOTHING_BITS
                    number -= 1


@compiled
def _needed(total: Any, quota: Any) -> Any:
    """How much of ``total`` must be kept where ``quota`` of it may be dropped: exact, and at least 1."""
    dropped = quota * (total >> _QUOTA_BITS) + ((quota * (total & _QUOTA_MASK)) >> _QUOTA_BITS)
    return max(total - dropped, np.int64(1))


@compiled
def _guess(bits: Ints, floor: Any, top: Any, quota: Any, slack: Any, keys: Ints, weights: Longs, bins: Longs) -> Any:
    """The key at which one in ``SAMPLED`` logits reach what is needed of their weight and ``slack`` 1/32 of it more."""
    found = 0
    for place in range(0, len(bits), SAMPLED):
        keys[found] = _key(bits[place])
        found += keys[found] >= floor
    mass = _weigh(keys, found, top, weights)
    if mass == 0:
        return _INFINITE if slack < 0 else floor
    need = min(max(_needed(mass, quota) + slack * (mass >> 5), np.int64(1)), mass)
    return _select(keys, weights, found, True, need, bins)[0]


@compiled
def _nucleus(
    logits: Floats,
    bits: Ints,
    floor: Any,
    top: Any,
    quota: Any,
    many: bool,
    tops: Ints,
    keys: Ints,
    weights: Longs,
    bins: Longs,
) -> Any:
    """The least key that is kept, and how many of those that have it are not.

    Where ``many`` are left to choose from, a nucleus of thousands is looked for first, near the end that a sample
    suggests. What the sample says decides how much work it is, and never the result.
    """
    guessed, ceiling = np.int64(_INFINITE), np.int64(_INFINITE)
    if many:
        guessed = np.int64(_guess(bits, floor, top, quota, 1, keys, weights, bins))
        ceiling = np.int64(_guess(bits, floor, top, quota, -1, keys, weights, bins))
    near = max(floor, np.int64(_key(np.float32(top - _NEAR).view(np.int32))))
    while True:
        total, above, doubt = _masses(logits, tops, floor, near, ceiling, top)
        need, most = _needed(total, quota), _needed(total + doubt, quota)
        found, held = 0, np.int64(0)
        if above < need:
            found = _gather(bits, tops, guessed, ceiling, keys)
            held = _weigh(keys, found, top, weights)
        if not above < need <= above + held:
            for reach in _REACHES:
                edge = max(floor, np.int64(_key(np.float32(top - reach).view(np.int32))))
                found = _gather(bits, tops, edge, _INFINITE, keys)
                if _weigh(keys, found, top, weights) >= need:
                    break
            above = np.int64(0)
        least, more, found = _select(keys, weights, found, True, need - above, bins)
        each = _weight(_float(least), top)
        kept = (need - above - more + each - 1) // each
        if near == floor or (kept == (most - above - more + each - 1) // each and kept <= found):
            return least, max(0, found - kept)
        # What was left out may matter: everything is weighed.
        near = floor


@compiled
def _one_row(batch: _Batch, row: int, scratch: _Scratch, thread: int) -> None:
    span = slice(row * batch.stride, row * batch.stride + batch.size)
    logits, bits = batch.logits[span], batch.bits[span]
    tops, keys, weights, bins = (
        scratch.tops[thread],
        scratch.keys[thread],
        scratch.weights[thread],
        scratch.bins[thread],
    )
    top_key = np.int64(_largest(bits, tops))
    if top_key >= _INFINITE or top_key <= _NOTHING:
        return
    top = _float(top_key)
    least = np.float32(top + batch.gaps[row])
    floor = np.int64(_key(least.view(np.int32)))
    count = batch.counts[row]
    if count > 0:
        bound = np.int64(_NOTHING)
        if count <= len(tops):
            # That many blocks hold a key no less than this one, so that many keys are no less.
            keys[: len(tops)] = tops
            bound = _select(keys, weights, len(tops), False, count, bins)[0]
        found = _gather(bits, tops, max(floor, bound), _INFINITE, keys)
        if found >= count:
            floor = _select(keys, weights, found, False, count, bins)[0]
    spared = 0
    if batch.quotas[row] > 0:
        floor, spared = _nucleus(logits, bits, floor, top, batch.quotas[row], count == 0, tops, keys, weights, bins)
    if floor > _NOTHING:
        _drop_below(bits, tops, floor)
        _drop_first(bits, tops, floor, spared)


@compiled
def _one_after_another(batch: _Batch, rows: Longs, scratch: _Scratch) -> None:
    for row in rows:
        _one_row(batch, row, scratch, 0)


def _each_by_a_thread(batch: _Batch, rows: Longs, scratch: _Scratch) -> None:
    for turn in prange(len(rows)):
        _one_row(batch, rows[turn], scratch, get_thread_id())


_in_parallel = compiled(_each_by_a_thread, parallel=True)

_held = threading.local()


class Limits(NamedTuple):
    """Which rows have something on, and :class:`kernels.nucleus.reference.Limits`."""

    rows: Longs
    counts: Longs
    gaps: Floats
    quotas: Longs


def apply(
    logits: Tensor, *, top_k: Tensor | None = None, top_p: Tensor | None = None, min_p: Tensor | None = None
) -> Tensor:
    """As :func:`kernels.nucleus.apply`, on CPU tensors. Rows with nothing on cost nothing."""
    return apply_limits(logits, limits(logits, top_k=top_k, top_p=top_p, min_p=min_p))


def limits(
    logits: Tensor, *, top_k: Tensor | None = None, top_p: Tensor | None = None, min_p: Tensor | None = None
) -> Limits:
    """The parameters as :func:`apply_limits` takes them, for logits of this shape. Raises as :func:`apply` does."""
    # Copied, so that they stay what they are whatever is written into the tensors.
    count, gap, quota = (part.numpy().copy() for part in reference.limits(logits, top_k, top_p, min_p))
    return Limits(np.flatnonzero((count > 0) | (gap > -np.inf) | (quota > 0)), count, gap, quota)


def apply_limits(logits: Tensor, limits: Limits) -> Tensor:
    """As :func:`apply`, for who brings the same parameters many times: reading them takes a sixth of its time."""
    if logits.dtype != torch.float32:
        raise TypeError(f"logits are {logits.dtype}, not float32")
    if len(limits.counts) != len(logits):
        raise ValueError(f"limits of {len(limits.counts)} rows for {len(logits)}")
    rows = limits.rows
    if not len(rows) or not logits.shape[1]:
        return logits
    if logits.stride(1) != 1:
        return logits.copy_(apply_limits(logits.contiguous(), limits))
    (height, size), stride = logits.shape, logits.stride(0)
    flat = logits.as_strided(((height - 1) * stride + size,), (1,)).numpy()
    batch = _Batch(flat, flat.view(np.int32), stride, size, limits.counts, limits.gaps, limits.quotas)
    shares = threads(len(rows))
    scratch = _scratch(shares, size)
    if shares == 1:
        _one_after_another(batch, rows, scratch)
    else:
        with Launching(shares):
            _in_parallel(batch, rows, scratch)
    return logits


def _scratch(threads: int, size: int) -> _Scratch:
    """Kept from call to call by whoever calls: fresh pages would cost more than the work."""
    held: _Scratch | None = getattr(_held, "scratch", None)
    if held is None or len(held.keys) < threads or held.keys.shape[1] != size + 1:
        held = _held.scratch = _Scratch(
            np.empty((threads, -(-size // BLOCK)), np.int32),
            np.empty((threads, size + 1), np.int32),
            np.empty((threads, size + 1), np.int64),
            np.empty((threads, BINS), np.int64),
        )
    return held


def warm() -> None:
    """Compile everything, or load it from numba's cache, and start the threads. Takes seconds the first time."""
    warn_of_few()
    for rows in (1, 2):
        logits = torch.zeros(rows, 2 * BLOCK)
        apply(logits, top_k=torch.full((rows,), 2), top_p=torch.full((rows,), 0.5), min_p=torch.full((rows,), 0.1))
