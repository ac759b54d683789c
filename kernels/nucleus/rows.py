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
    """What threads work in: each has a row of each array. One thread's own are these rows."""

    tops: Ints
    keys: Ints
    weights: Longs
    bins: Longs


class Row(NamedTuple):
    """One of a batch."""

    logits: Floats
    bits: Ints
    temperature: Any
    count: Any
    gap: Any
    quota: Any


@compiled
def _at_the_top(row: Row, top_key: Any, own: Scratch) -> Any:
    """The least key that is kept, and how many of those that have it are not; -1 where that has to be looked for.

    Only what is near the largest logit is divided by the temperature: keys are of quotients, and ``tops`` is not.
    """
    logits, bits, temperature, count, gap, quota = row
    tops, keys, weights, bins = own
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
def _anywhere(row: Row, top_key: Any, own: Scratch) -> Any:
    """As :func:`_at_the_top`, for every row: everything is weighed. The temperature is applied.

    A nucleus of thousands is looked for near the end that a sample suggests. What the sample says decides how much
    work it is, and never the result.
    """
    logits, bits, _, count, gap, quota = row
    tops, keys, weights, bins = own
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
def _row(batch: Batch, row: int) -> Row:
    span = slice(row * batch.stride, row * batch.stride + batch.size)
    asked = batch.temperatures[row], batch.counts[row], batch.gaps[row], batch.quotas[row]
    return Row(batch.logits[span], batch.bits[span], *asked)


@compiled
def _own(scratch: Scratch, thread: int) -> Scratch:
    return Scratch(scratch.tops[thread], scratch.keys[thread], scratch.weights[thread], scratch.bins[thread])


@compiled
def _threshold(row: Row, own: Scratch) -> Any:
    """The least key that is kept, and how many of those that have it are not; and what is yet to be divided by.

    A key below ``NOTHING``: the row is at fault, or has nothing, and is to stay as it is.
    """
    top_key = largest(row.bits, own.tops)
    if NOTHING < top_key < INFINITE:
        floor, spared = _at_the_top(row, top_key, own)
        if spared >= 0:
            return floor, spared, row.temperature
    if row.temperature != ONE:
        for place in range(len(row.logits)):
            row.logits[place] /= row.temperature
        top_key = largest(row.bits, own.tops)
    if not NOTHING < top_key < INFINITE:
        return np.int64(INT_MIN), 0, ONE
    floor, spared = _anywhere(row, top_key, own)
    return floor, spared, ONE


@compiled
def _cut(row: Row, own: Scratch) -> None:
    """Writes -inf over what goes. The temperature is 1."""
    floor, spared, _ = _threshold(row, own)
    if floor > NOTHING:
        drop_below(row.bits, own.tops, floor)
        drop_first(row.bits, own.tops, floor, spared)


@compiled
def _drawn(row: Row, seed: Any, own: Scratch) -> Any:
    """A token of what stays, by Gumbel's noise: the first of the largest sums of a quotient and its noise; or 0."""
    floor, spared, temperature = _threshold(row, own)
    logits, bits, tops = row.logits, row.bits, own.tops
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
            tokens[row] = _drawn(_row(batch, row), seeds[row], _own(scratch, 0))
        else:
            _cut(_row(batch, row), _own(scratch, 0))


@partial(compiled, parallel=True)
def in_parallel(batch: Batch, rows: Longs, scratch: Scratch, seeds: Longs, tokens: Longs) -> None:
    for turn in prange(len(rows)):
        row, own = rows[turn], _own(scratch, get_thread_id())
        if len(seeds):
            tokens[row] = _drawn(_row(batch, row), seeds[row], own)
        else:
            _cut(_row(batch, row), own)
