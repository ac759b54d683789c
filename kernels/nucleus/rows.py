"""One row's nucleus on a CPU, for numba: what is kept of it, or the token drawn from that. README.md says how."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kernels.nucleus import reference
from kernels.nucleus.lanes import BLOCK, lowest
from kernels.nucleus.noise import all_lose, better, mixed
from kernels.nucleus.sweeps import (
    BANDS,
    BINS,
    CANDIDATES,
    CLOSELY,
    NOTHING_BITS,
    Floats,
    Ints,
    Longs,
    candidates,
    closely,
    drop_below,
    drop_first,
    gather,
    largest,
    likeliest,
    masses,
    others,
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
_REACHED = np.float32(16.0)
"""How far below the largest the sampled are told apart."""
_QUOTA_UNIT = float(1 << reference.QUOTA_BITS)
_REACHES = (np.float32(3.0), np.float32(6.0), np.float32(12.0), np.float32(np.inf))
"""How far below the largest logit a nucleus is looked for, one after the other."""


class Scratch(NamedTuple):
    """What one thread works in."""

    tops: Ints
    keys: Ints
    weights: Longs
    bins: Longs


class Row(NamedTuple):
    """One of a batch: its logits, as floats and as their bits, yet to be divided by its temperature.

    Its limits are those of :class:`kernels.nucleus.reference.Limits`.
    """

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
    return _edge(own, found, need, most, top)


@compiled
def _edge(own: Scratch, found: int, need: Any, most: Any, top: Any) -> Any:
    """The gathered key at which the weight, from the largest down, reaches what is needed, and as :func:`_spared`."""
    least, more, equal = select(own.keys, own.weights, found, True, need, own.bins)
    return least, _spared(least, equal, need - more, most - more, top)


@compiled
def _spared(key: Any, found: int, need: Any, most: Any, top: Any) -> Any:
    """How many of ``found`` with this key may go, if between ``need`` and ``most`` of their weight is to stay.

    -1 where that is not the same at both ends, or there are too few.
    """
    each = weight(float_of(key), top)
    kept = (need + each - 1) // each
    return found - kept if kept <= found and kept == (most + each - 1) // each else -1


@compiled
def _edge_between(row: Row, low: Any, ceiling: Any, need: Any, most: Any, top: Any, own: Scratch) -> Any:
    """As :func:`_edge`, of the keys from ``low`` up to and without ``ceiling``."""
    found = gather(row.bits, own.tops, low, ceiling, own.keys)
    if weigh(own.keys, found, top, own.weights) < most:
        return low, -1
    return _edge(own, found, need, most, top)


@compiled
def _range_of(key: Any, top: Any, scale: Any) -> Any:
    """Which of ``BINS`` ranges of distances below the largest logit, the last of which has no end."""
    distance = (top - float_of(key)) * scale
    return np.int64(distance) if distance < np.float32(BINS) else np.int64(BINS - 1)


@compiled
def _guesses(row: Row, floor: Any, top: Any, own: Scratch) -> Any:
    """Keys between which a nucleus should end: from the first up to and without the second.

    One in ``SAMPLED`` logits is weighed. Of theirs, the ranges of keys are taken at which the weight reaches 1/32 less
    and 1/32 more than is needed.
    """
    keys, weights, bins = own.keys, own.weights, own.bins
    found = 0
    for place in range(0, len(row.bits), SAMPLED):
        keys[found] = key_of(row.bits[place])
        found += keys[found] >= floor
    mass = weigh(keys, found, top, weights)
    if mass == 0:
        return np.int64(floor), np.int64(INFINITE)
    low, high = np.int64(INFINITE), np.int64(NOTHING)
    for place in range(found):
        low, high = min(low, np.int64(keys[place])), max(high, np.int64(keys[place]))
    if low == high:
        return low, high + 1
    scale = np.float32(BINS) / min(top - float_of(low), _REACHED)
    bins[:] = 0
    for place in range(found):
        bins[_range_of(keys[place], top, scale)] += weights[place]
    need, slack = needed(mass, row.quota), mass >> 5
    first, above = 0, bins[0]
    while above < need - slack:
        first += 1
        above += bins[first]
    last = first
    while above < min(need + slack, mass):
        last += 1
        above += bins[last]
    low, high = np.int64(INFINITE), np.int64(NOTHING)
    for place in range(found):
        if first <= _range_of(keys[place], top, scale) <= last:
            low, high = min(low, np.int64(keys[place])), max(high, np.int64(keys[place]))
    return low, high + 1


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
    low, ceiling = _guesses(row, floor, top, own)
    if ceiling == low + 1:
        spared = _among_equals(row, floor, low, top, own)
        if spared >= 0:
            return low, spared
    least, spared = _nearly(row, floor, low, ceiling, top, own)
    if spared >= 0:
        return least, spared
    total, above = masses(logits, tops, floor, ceiling, top)
    need = needed(total, quota)
    if above < need:
        least, spared = _edge_between(row, low, ceiling, need - above, need - above, top, own)
    for reach in _REACHES:
        if spared < 0:
            low = max(floor, key_of_float(np.float32(top - reach)))
            least, spared = _edge_between(row, low, np.int64(INFINITE), need, need, top, own)
    return least, spared


@compiled
def _among_equals(row: Row, floor: Any, key: Any, top: Any, own: Scratch) -> Any:
    """How many with this key may go, if it is the last that is kept, and where few have another one. -1 otherwise."""
    equal, found = others(row.bits, own.tops, floor, key, own.keys)
    if found > CANDIDATES:
        return -1
    each = weight(float_of(key), top)
    need = needed(weigh(own.keys, found, top, own.weights) + equal * each, row.quota)
    for place in range(found):
        need -= own.weights[place] if own.keys[place] > key else np.int64(0)
    return _spared(key, equal, need, need, top) if need > 0 else -1


@compiled
def _nearly(row: Row, floor: Any, low: Any, ceiling: Any, top: Any, own: Scratch) -> Any:
    """As :func:`_anywhere`, between two keys; -1 where it is not there, or sums that are nearly right do not tell."""
    edges = np.empty(BANDS + 1, np.float32)
    edges[0], edges[BANDS] = float_of(ceiling), float_of(low)
    for band in range(1, BANDS):
        edges[band] = edges[0] + (edges[BANDS] - edges[0]) * np.float32(band / BANDS)
    total, below = closely(row.logits, floor, edges[:BANDS], top)
    dropped = total * (row.quota / _QUOTA_UNIT)
    for band in range(BANDS - 1, -1, -1):
        need = below[band] - dropped
        # What is rounded down to units is wrong by one of them each.
        wrong = (below[band] + dropped) * CLOSELY + len(row.logits) + 2.0
        if need > wrong:
            low, ceiling = max(key_of_float(edges[band + 1]), floor), key_of_float(edges[band])
            return _edge_between(row, low, ceiling, np.int64(need - wrong), np.int64(need + wrong), top, own)
    return low, -1


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
def cut(row: Row, own: Scratch) -> None:
    """Writes -inf over what goes. The temperature is 1."""
    floor, spared, _ = _threshold(row, own)
    if floor > NOTHING:
        drop_below(row.bits, own.tops, floor)
        drop_first(row.bits, own.tops, floor, spared)


@compiled
def drawn(row: Row, seed: Any, own: Scratch) -> Any:
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
