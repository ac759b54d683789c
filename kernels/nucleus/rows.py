"""One row's nucleus on a CPU, for numba: what is kept of it, or the token drawn from that. README.md says how."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numba import get_thread_id, prange

from kernels.nucleus.lanes import BLOCK, lowest
from kernels.nucleus.noise import all_lose, better, mixed
from kernels.nucleus.sweeps import (
    CANDIDATES,
    NOTHING_BITS,
    Floats,
    Ints,
    Longs,
    candidates,
    drop_below,
    drop_first,
    equals,
    gather,
    largest,
    likeliest,
    masses,
    reaching,
    roughly,
    select,
    weigh,
    within,
)
from kernels.nucleus.weights import INFINITE, INT_MIN, NOTHING, ONE, float_of, key_of, key_of_float, needed, weight
from kernels.threads import compiled

SAMPLED = 32
"""One logit in so many is looked at to guess where the nucleus of a flat row ends."""
_REACHES = (np.float32(3.0), np.float32(6.0), np.float32(12.0), np.float32(np.inf))
"""How far below the largest logit a nucleus is looked for, one after the other."""


class Batch(NamedTuple):
    """The logits, as floats and as their bits, flat from the first row's first to the last row's last.

    The limits are :class:`kernels.nucleus.reference.Limits`; by its temperature a row is yet to be divided.
    """

    logits: Floats
    bits: Ints
    stride: int
    size: int
    counts: Longs
    gaps: Floats
    quotas: Longs
    temperatures: Floats


class Scratch(NamedTuple):
    """What each thread works in: its row of each array."""

    tops: Ints
    keys: Ints
    weights: Longs
    bins: Longs


@compiled
def _at_the_top(
    logits: Floats,
    bits: Ints,
    top_key: Any,
    temperature: Any,
    count: Any,
    gap: Any,
    quota: Any,
    tops: Ints,
    keys: Ints,
    weights: Longs,
    bins: Longs,
) -> Any:
    """The least key that is kept, and how many of those that have it are not; -1 where that has to be looked for.

    Only what is near the largest logit is divided by the temperature: keys are of quotients, and ``tops`` is not.
    """
    raw_top = float_of(top_key)
    top = np.float32(raw_top / temperature)
    edge = key_of_float(np.float32(top + gap))
    if abs(top) == np.inf or count > len(tops):
        return edge, -1
    if count > 0:
        # That many blocks hold a key no less than this one, so that many keys are no less.
        keys[: len(tops)] = tops
        bound = select(keys, weights, len(tops), False, count, bins)[0]
        edge = max(edge, key_of_float(float_of(bound) / temperature))
        found = candidates(logits, bits, tops, temperature, edge, keys)
        if found > CANDIDATES:
            return edge, -1
        if found >= count:
            edge = select(keys, weights, found, False, count, bins)[0]
    if quota == 0:
        return edge, 0
    if edge > NOTHING:
        found = candidates(logits, bits, tops, temperature, edge, keys)
        if found > CANDIDATES:
            return edge, -1
        need = most = needed(weigh(keys, found, top, weights), quota)
    else:
        lightest, heaviest = roughly(logits, tops, raw_top, temperature)
        if heaviest == 0:
            return edge, -1
        need, most = needed(lightest, quota), needed(heaviest, quota)
        found = 0
        for reach in _REACHES[:-1]:
            found = candidates(logits, bits, tops, temperature, key_of_float(np.float32(top - reach)), keys)
            if found > CANDIDATES:
                return edge, -1
            if weigh(keys, found, top, weights) >= most:
                break
        else:
            return edge, -1
    least, more, found = select(keys, weights, found, True, need, bins)
    each = weight(float_of(least), top)
    kept = (need - more + each - 1) // each
    if kept > found or kept != (most - more + each - 1) // each:
        return edge, -1
    return least, found - kept


@compiled
def _guesses(bits: Ints, floor: Any, top: Any, quota: Any, keys: Ints, weights: Longs, bins: Longs) -> Any:
    """The keys at which one in ``SAMPLED`` logits reach what is needed of their weight, 1/32 more and 1/32 less."""
    found = 0
    for place in range(0, len(bits), SAMPLED):
        keys[found] = key_of(bits[place])
        found += keys[found] >= floor
    mass = weigh(keys, found, top, weights)
    if mass == 0:
        return np.int64(floor), np.int64(INFINITE)
    # Selecting uses them up. There are at most half as many as fit.
    keys[found : 2 * found] = keys[:found]
    weights[found : 2 * found] = weights[:found]
    need, slack = needed(mass, quota), mass >> 5
    low = select(keys, weights, found, True, min(need + slack, mass), bins)[0]
    high = select(keys[found:], weights[found:], found, True, min(max(need - slack, np.int64(1)), mass), bins)[0]
    return np.int64(low), np.int64(high)


@compiled
def _anywhere(
    logits: Floats,
    bits: Ints,
    top_key: Any,
    count: Any,
    gap: Any,
    quota: Any,
    tops: Ints,
    keys: Ints,
    weights: Longs,
    bins: Longs,
) -> Any:
    """As :func:`_at_the_top`, for every row: everything is weighed. The temperature is applied.

    A nucleus of thousands is looked for near the end that a sample suggests. What the sample says decides how much
    work it is, and never the result.
    """
    top = float_of(top_key)
    floor = key_of_float(np.float32(top + gap))
    if count > 0:
        bound = np.int64(NOTHING)
        if count <= len(tops):
            keys[: len(tops)] = tops
            bound = select(keys, weights, len(tops), False, count, bins)[0]
        # At least so many have the key ``bound`` or a larger one. Where few have a larger one, it is the edge.
        found = gather(bits, tops, max(floor, bound + 1), INFINITE, keys)
        floor = select(keys, weights, found, False, count, bins)[0] if found >= count else max(floor, bound)
    if quota == 0:
        return floor, 0
    guessed, ceiling = _guesses(bits, floor, top, quota, keys, weights, bins)
    alike = guessed == ceiling
    if alike:
        # So many are equal that the sample knows no other edge. Equals are counted.
        ceiling += 1
    total, above = masses(logits, tops, floor, ceiling, top)
    need = needed(total, quota)
    if above < need:
        if alike:
            found, each = equals(bits, tops, guessed), weight(float_of(guessed), top)
            if need <= above + found * each:
                return guessed, found - (need - above + each - 1) // each
        else:
            found = gather(bits, tops, guessed, ceiling, keys)
            if need <= above + weigh(keys, found, top, weights):
                return _edge(keys, weights, found, need, above, top, bins)
    for reach in _REACHES:
        found = gather(bits, tops, max(floor, key_of_float(np.float32(top - reach))), INFINITE, keys)
        if weigh(keys, found, top, weights) >= need:
            break
    return _edge(keys, weights, found, need, np.int64(0), top, bins)


@compiled
def _edge(keys: Ints, weights: Longs, found: int, need: Any, above: Any, top: Any, bins: Longs) -> Any:
    """The key at which the weight reaches ``need``, of which ``above`` is there, and how many that have it may go."""
    least, more, found = select(keys, weights, found, True, need - above, bins)
    each = weight(float_of(least), top)
    return least, found - (need - above - more + each - 1) // each


@compiled
def _threshold(batch: Batch, row: int, scratch: Scratch, thread: int) -> Any:
    """The least key that is kept, and how many of those that have it are not; and what is yet to be divided by.

    A key below ``NOTHING``: the row is at fault, or has nothing, and is to stay as it is.
    """
    span = slice(row * batch.stride, row * batch.stride + batch.size)
    logits, bits = batch.logits[span], batch.bits[span]
    temperature, count, gap, quota = batch.temperatures[row], batch.counts[row], batch.gaps[row], batch.quotas[row]
    tops, keys = scratch.tops[thread], scratch.keys[thread]
    weights, bins = scratch.weights[thread], scratch.bins[thread]
    top_key = largest(bits, tops)
    if NOTHING < top_key < INFINITE:
        floor, spared = _at_the_top(logits, bits, top_key, temperature, count, gap, quota, tops, keys, weights, bins)
        if spared >= 0:
            return floor, spared, temperature
    if temperature != ONE:
        for place in range(len(logits)):
            logits[place] /= temperature
        top_key = largest(bits, tops)
    if not NOTHING < top_key < INFINITE:
        return np.int64(INT_MIN), 0, ONE
    floor, spared = _anywhere(logits, bits, top_key, count, gap, quota, tops, keys, weights, bins)
    return floor, spared, ONE


@compiled
def _cut(batch: Batch, row: int, scratch: Scratch, thread: int) -> None:
    """Writes -inf over what goes. The temperature is 1."""
    floor, spared, _ = _threshold(batch, row, scratch, thread)
    if floor > NOTHING:
        bits = batch.bits[row * batch.stride : row * batch.stride + batch.size]
        drop_below(bits, scratch.tops[thread], floor)
        drop_first(bits, scratch.tops[thread], floor, spared)


@compiled
def _drawn(batch: Batch, row: int, seed: Any, scratch: Scratch, thread: int) -> Any:
    """A token of what stays, by Gumbel's noise: the first of the largest sums of a quotient and its noise; or 0."""
    floor, spared, temperature = _threshold(batch, row, scratch, thread)
    span = slice(row * batch.stride, row * batch.stride + batch.size)
    logits, bits, tops = batch.logits[span], batch.bits[span], scratch.tops[thread]
    start = mixed(np.uint64(seed))
    token, best, noise = -1, 0.0, 0.0
    if floor < NOTHING:
        for place in range(len(logits)):
            if bits[place] != NOTHING_BITS:
                token, best, noise = better(start, place, logits[place], token, best, noise)
        return max(token, 0)
    floor = max(floor, np.int64(NOTHING + 1))
    raw = reaching(floor, temperature)
    first = likeliest(bits, tops)
    if key_of_float(logits[first] / temperature) > floor:
        # So that of most blocks the loudest noise is seen not to be enough.
        token, best, noise = better(start, first, logits[first] / temperature, token, best, noise)
    for block in range(len(tops)):
        if tops[block] < raw:
            continue
        first, part = block * BLOCK, bits[block * BLOCK : (block + 1) * BLOCK]
        logit = float_of(tops[block]) / temperature
        if token >= 0 and spared == 0 and all_lose(start, first, len(part), logit, best, noise):
            continue
        ones = within(part, raw, np.int64(INFINITE))
        while ones:
            at = first + np.int64(lowest(ones))
            ones &= ones - np.uint64(1)
            logit = logits[at] / temperature
            key = key_of_float(logit)
            if key == floor and spared > 0:
                spared -= 1
            elif key >= floor:
                token, best, noise = better(start, at, logit, token, best, noise)
    return token


@compiled
def one_after_another(batch: Batch, rows: Longs, scratch: Scratch, seeds: Longs, tokens: Longs) -> None:
    """Draw a token of each row into ``tokens``; without seeds, write -inf over what each row drops."""
    for row in rows:
        if len(seeds):
            tokens[row] = _drawn(batch, row, seeds[row], scratch, 0)
        else:
            _cut(batch, row, scratch, 0)


@partial(compiled, parallel=True)
def in_parallel(batch: Batch, rows: Longs, scratch: Scratch, seeds: Longs, tokens: Longs) -> None:
    for turn in prange(len(rows)):
        if len(seeds):
            tokens[rows[turn]] = _drawn(batch, rows[turn], seeds[rows[turn]], scratch, get_thread_id())
        else:
            _cut(batch, rows[turn], scratch, get_thread_id())
