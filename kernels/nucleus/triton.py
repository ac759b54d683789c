"""The nucleus on GPUs: a few sweeps over the logits, each row shared by many programs.

The first finds a row's largest logit. The second adds up, in buckets by the distance from it, how many tokens there are
or what they weigh; since weights are integers, atomic additions give the same sums in any order. One bucket holds the
threshold: the next sweep gathers its tokens, mostly a few hundred, and the last one bisects among them and drops what
is below. A row whose bucket is too full for that, which takes thousands of logits that are nearly equal, is bisected in
place by one program: slower, and the same result.

Additions are what takes long. So for top-k nothing is counted that is below a bound on the k-th largest logit, and for
top-p what is far from the largest is added up as one, unless the threshold turns out to be there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.nucleus import reference

BLOCK = 1024
BUCKETS = 2048
CANDIDATES = 4096
"""Tokens that are gathered of a row at most."""
FEW = 512
"""So many tokens are bisected in a fraction of the time."""
BOUNDED = 64
"""How many logits a part looks for, to bound the k-th largest from below, at most."""
PROGRAMS = 512
"""Between which the rows are divided, if there are fewer of them..."""
MOST_PARTS = 64
"""...into so many parts each at most..."""
LEAST_PART = 1024
"""...of at least so many logits."""
OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
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
_QUOTA_UNITS = tl.constexpr(float(1 << reference.QUOTA_BITS))
_BUCKETS = tl.constexpr(BUCKETS)
_BUCKET_BITS = tl.constexpr(15)
"""Of the distance plus one, the upper bits of the float: 256 buckets an octave, up to 255."""
_ONE = tl.constexpr(0x3F800000)
_NEAR = tl.constexpr(896)
"""Buckets that are near: up to a distance of 11, where a token weighs 1.7e-5 of the likeliest one."""
_MOST_PARTS = tl.constexpr(MOST_PARTS)
_LOWEST = tl.constexpr(-(1 << 31))
_HIGHEST = tl.constexpr((1 << 31) - 1)

F = TypeVar("F", bound=Callable[..., Any])


def _compiled(function: F) -> F:
    return cast(F, triton.jit(do_not_specialize=["parts"])(function))


@_compiled
def _keys(logits: tl.tensor) -> tl.tensor:
    """Integers in the order of the floats; -0.0 and 0.0 have the same."""
    bits = logits.to(tl.int32, bitcast=True)
    return tl.where(bits >= 0, bits, -(bits & _MAGNITUDE))


@_compiled
def _logits(keys: tl.tensor) -> tl.tensor:
    """The floats that have these keys."""
    return tl.where(keys >= 0, keys, -keys | ~_MAGNITUDE).to(tl.float32, bitcast=True)


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
def _bucket(logits: tl.tensor, top: tl.tensor) -> tl.tensor:
    """By distance from the largest logit, which has bucket 0."""
    bits = ((top - logits) + 1.0).to(tl.int32, bitcast=True)
    return tl.minimum((bits - _ONE) >> _BUCKET_BITS, _BUCKETS - 1)


@_compiled
def _part(size: tl.tensor, parts: tl.tensor) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Which row this program works at, which part of it, and from which column to which."""
    length = tl.cdiv(size, parts)
    part = tl.program_id(0) % parts
    return (tl.program_id(0) // parts).to(tl.int64), part, part * length, tl.minimum((part + 1) * length, size)


@_compiled
def _block(row: tl.tensor, step: tl.tensor, first: tl.tensor, end: tl.tensor, block: tl.constexpr) -> tl.tensor:
    """Logits from column ``first`` on; -inf from column ``end`` on."""
    columns = first + tl.arange(0, block)
    return tl.load(row + columns.to(tl.int64) * step, mask=columns < end, other=-float("inf"))


@_compiled
def _asked(
    row: tl.tensor, size: tl.tensor, counts: tl.tensor, gaps: tl.tensor, shares: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """A row's limits as :func:`kernels.nucleus.reference.limits` has them; a pointer may be ``None``."""
    count, gap, quota = tl.zeros((), tl.int64), tl.full((), -float("inf"), tl.float32), tl.zeros((), tl.int64)
    if counts is not None:
        count = tl.load(counts + row).to(tl.int64)
        count = tl.where((count < 1) | (count >= size), 0, count)
    if gaps is not None:
        gap = tl.load(gaps + row)
    if shares is not None:
        share = tl.load(shares + row)
        share = tl.where(share == share, tl.minimum(tl.maximum(share, 0.0), 1.0), 1.0)
        quota = ((1.0 - share) * _QUOTA_UNITS).to(tl.int64)
    return count, gap, quota


@_compiled
def _top_of(tops: tl.tensor, row: tl.tensor, parts: tl.tensor) -> tl.tensor:
    """A row's largest logit; +inf where it has a fault."""
    part = tl.arange(0, _MOST_PARTS)
    return tl.max(tl.load(tops + row * parts + part, mask=part < parts, other=-float("inf")), 0)


@_compiled
def _needed(total: tl.tensor, quota: tl.tensor) -> tl.tensor:
    """What the kept tokens weigh at least."""
    dropped = quota * (total >> _QUOTA_BITS) + ((quota * (total & _QUOTA_MASK)) >> _QUOTA_BITS)
    return tl.maximum(total - dropped, 1)


@_compiled
def _survey(
    logits: tl.tensor,
    stride: tl.tensor,
    step: tl.tensor,
    size: tl.tensor,
    parts: tl.tensor,
    counts: tl.tensor,
    tops: tl.tensor,
    bounds: tl.tensor,
    buckets: tl.tensor,
    rests: tl.tensor,
    taken: tl.tensor,
    bounded: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """The largest logit of each part, +inf where there is a fault; what the next sweeps add to becomes zero.

    ``bounds`` [rows, parts]: if each part has its share of ``k`` logits that are no less, the k-th largest of the row
    is no less than the least of them.
    """
    row, part, begin, end = _part(size, parts)
    top = tl.full((block,), -float("inf"), tl.float32)
    for first in range(begin, end, block):
        found = _block(logits + row * stride, step, first, end, block)
        magnitude = found.to(tl.int32, bitcast=True) & _MAGNITUDE
        top = tl.maximum(top, tl.where(magnitude > _INFINITE, float("inf"), found))
    bound = tl.max(top, 0)
    tl.store(tops + row * parts + part, bound)
    if counts is not None:
        share = tl.cdiv(tl.load(counts + row), parts)
        if (share > 0) & (share <= bounded):
            for _ in range(1, share):
                bound = tl.max(tl.where(top < bound, top, -float("inf")), 0)
        else:
            bound = -float("inf")
        tl.store(bounds + row * parts + part, bound)
    if part == 0:
        tl.store(buckets + row * _BUCKETS + tl.arange(0, _BUCKETS), tl.zeros((_BUCKETS,), tl.int64))
        tl.store(rests + row, tl.zeros((), tl.int64))
        tl.store(taken + row, 0)


@_compiled
def _weigh(
    logits: tl.tensor,
    stride: tl.tensor,
    step: tl.tensor,
    size: tl.tensor,
    parts: tl.tensor,
    counts: tl.tensor,
    gaps: tl.tensor,
    shares: tl.tensor,
    tops: tl.tensor,
    bounds: tl.tensor,
    buckets: tl.tensor,
    rests: tl.tensor,
    block: tl.constexpr,
) -> None:
    """How many tokens each bucket of a row has, or where no top-k is on, what the near ones weigh, and the rest."""
    row, _, begin, end = _part(size, parts)
    count, gap, quota = _asked(row, size, counts, gaps, shares)
    top = _top_of(tops, row, parts)
    if ((count > 0) | (quota > 0)) & (top > -float("inf")) & (top < float("inf")):
        floor = _keys(top + gap)
        target = buckets + row * _BUCKETS
        if count > 0:
            other = tl.arange(0, _MOST_PARTS)
            bound = tl.min(tl.load(bounds + row * parts + other, mask=other < parts, other=float("inf")), 0)
            for first in range(begin, end, block):
                found = _block(logits + row * stride, step, first, end, block)
                adds = (found > -float("inf")) & (found >= bound) & (_keys(found) >= floor)
                tl.atomic_add(target + _bucket(found, top), tl.full((block,), 1, tl.int64), mask=adds, sem="relaxed")
        else:
            rest = tl.zeros((block,), tl.int64)
            for first in range(begin, end, block):
                found = _block(logits + row * stride, step, first, end, block)
                bucket = _bucket(found, top)
                amount = tl.where(_keys(found) >= floor, _weights(found, top), 0)
                near = bucket < _NEAR
                tl.atomic_add(target + bucket, amount, mask=near & (amount > 0), sem="relaxed")
                rest += tl.where(near, 0, amount)
            tl.atomic_add(rests + row, tl.sum(rest, 0), sem="relaxed")


@_compiled
def _weigh_far(
    logits: tl.tensor,
    stride: tl.tensor,
    step: tl.tensor,
    size: tl.tensor,
    parts: tl.tensor,
    counts: tl.tensor,
    gaps: tl.tensor,
    shares: tl.tensor,
    tops: tl.tensor,
    buckets: tl.tensor,
    rests: tl.tensor,
    block: tl.constexpr,
) -> None:
    """What the buckets that are not near weigh, in rows whose threshold is there."""
    row, _, begin, end = _part(size, parts)
    count, gap, quota = _asked(row, size, counts, gaps, shares)
    top = _top_of(tops, row, parts)
    if (count == 0) & (quota > 0) & (top > -float("inf")) & (top < float("inf")):
        place = tl.arange(0, _BUCKETS)
        near = tl.sum(tl.load(buckets + row * _BUCKETS + place, mask=place < _NEAR, other=0), 0)
        if near < _needed(near + tl.load(rests + row), quota):
            floor = _keys(top + gap)
            for first in range(begin, end, block):
                found = _block(logits + row * stride, step, first, end, block)
                bucket = _bucket(found, top)
                amount = tl.where((bucket >= _NEAR) & (_keys(found) >= floor), _weights(found, top), 0)
                tl.atomic_add(buckets + row * _BUCKETS + bucket, amount, mask=amount > 0, sem="relaxed")


@_compiled
def _gather(
    logits: tl.tensor,
    stride: tl.tensor,
    step: tl.tensor,
    size: tl.tensor,
    parts: tl.tensor,
    counts: tl.tensor,
    gaps: tl.tensor,
    shares: tl.tensor,
    tops: tl.tensor,
    bounds: tl.tensor,
    buckets: tl.tensor,
    rests: tl.tensor,
    taken: tl.tensor,
    sums: tl.tensor,
    portions: tl.tensor,
    candidates: tl.tensor,
    columns: tl.tensor,
    most: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """The tokens among which the threshold is: those of one bucket, and for top-k those above it, too.

    ``sums`` [rows, 2]: what is above the bucket, and what is needed. ``portions`` [rows, parts, 3]: how many tokens
    come from each part, and their least and largest key.
    """
    row, part, begin, end = _part(size, parts)
    count, gap, quota = _asked(row, size, counts, gaps, shares)
    top = _top_of(tops, row, parts)
    if ((count > 0) | (quota > 0)) & (top > -float("inf")) & (top < float("inf")):
        floor = _keys(top + gap)
        place = tl.arange(0, _BUCKETS)
        amounts = tl.load(buckets + row * _BUCKETS + place)
        if count > 0:
            need = tl.minimum(count, tl.sum(amounts, 0))
        else:
            # The others are part of the rest, whether or not they were weighed.
            near = tl.sum(tl.where(place < _NEAR, amounts, 0), 0)
            need = _needed(near + tl.load(rests + row), quota)
        last = tl.sum((tl.cumsum(amounts, 0) < need).to(tl.int32), 0)
        nearest = tl.where(count > 0, 0, last)
        if part == 0:
            above = tl.sum(tl.where(place < nearest, amounts, 0), 0)
            tl.store(sums + row * 2, above)
            tl.store(sums + row * 2 + 1, need)
        if count > 0:
            other = tl.arange(0, _MOST_PARTS)
            bound = tl.min(tl.load(bounds + row * parts + other, mask=other < parts, other=float("inf")), 0)
            floor = tl.maximum(floor, _keys(bound))
        own = tl.zeros((), tl.int32)
        low, high = tl.full((), _HIGHEST, tl.int32), tl.full((), _LOWEST, tl.int32)
        for first in range(begin, end, block):
            found = _block(logits + row * stride, step, first, end, block)
            keys, bucket = _keys(found), _bucket(found, top)
            inside = (found > -float("inf")) & (keys >= floor) & (bucket >= nearest) & (bucket <= last)
            number = tl.sum(inside.to(tl.int32), 0)
            if number > 0:
                own += number
                low = tl.minimum(low, tl.min(tl.where(inside, keys, _HIGHEST), 0))
                high = tl.maximum(high, tl.max(tl.where(inside, keys, _LOWEST), 0))
                target = tl.atomic_add(taken + row, number, sem="relaxed")
                target += tl.cumsum(inside.to(tl.int32), 0) - 1
                stored = inside & (target < most)
                tl.store(candidates + row * most + target, keys, mask=stored)
                tl.store(columns + row * most + target, first + tl.arange(0, block), mask=stored)
        portion = portions + (row * parts + part) * 3
        tl.store(portion, own)
        tl.store(portion + 1, low)
        tl.store(portion + 2, high)


@_compiled
def _highest(keys: tl.tensor, amounts: tl.tensor, low: tl.tensor, high: tl.tensor, need: tl.tensor) -> tl.tensor:
    """The largest key from ``low`` to ``high`` from which on the amounts add up to ``need``; ``low`` where none has."""
    while low < high:
        middle = low + (high - low + 1) // 2
        enough = tl.sum(tl.where(keys >= middle.to(tl.int32), amounts, 0), 0) >= need
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle - 1)
    return low


@_compiled
def _spared(equal: tl.tensor, above: tl.tensor, need: tl.tensor, each: tl.tensor) -> tl.tensor:
    """How many of ``equal`` tokens of the same weight are not needed."""
    return tl.maximum(equal - (need - above + each - 1) // each, 0)


@_compiled
def _among(
    candidates: tl.tensor,
    columns: tl.tensor,
    number: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    count: tl.tensor,
    quota: tl.tensor,
    above: tl.tensor,
    need: tl.tensor,
    top: tl.tensor,
    begin: tl.tensor,
    most: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The least kept key, how many of those equal to it are dropped, and how many come before column ``begin``."""
    place = tl.arange(0, most)
    within = place < number
    keys = tl.load(candidates + place, mask=within, other=_LOWEST)
    floor, spared, passed = low, tl.zeros((), tl.int64), tl.zeros((), tl.int64)
    if count > 0:
        floor = _highest(keys, within.to(tl.int32), low, high, need)
    if quota > 0:
        amounts = tl.where(within, _weights(_logits(keys), top), 0)
        if count > 0:
            need = _needed(tl.sum(tl.where(keys >= floor.to(tl.int32), amounts, 0), 0), quota)
        floor = _highest(keys, amounts, floor, high, need - above)
        equal = within & (keys == floor.to(tl.int32))
        above += tl.sum(tl.where(keys > floor.to(tl.int32), amounts, 0), 0)
        spared = _spared(tl.sum(equal.to(tl.int64), 0), above, need, tl.max(tl.where(equal, amounts, 1), 0))
        if spared > 0:
            column = tl.load(columns + place, mask=within, other=0)
            passed = tl.sum((equal & (column < begin)).to(tl.int64), 0)
    return floor, spared, passed


@_compiled
def _cut(
    logits: tl.tensor,
    stride: tl.tensor,
    step: tl.tensor,
    size: tl.tensor,
    parts: tl.tensor,
    counts: tl.tensor,
    gaps: tl.tensor,
    shares: tl.tensor,
    tops: tl.tensor,
    taken: tl.tensor,
    sums: tl.tensor,
    portions: tl.tensor,
    candidates: tl.tensor,
    columns: tl.tensor,
    most: tl.constexpr,
    few: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Finds the threshold among the gathered tokens, and drops what is below it."""
    row, part, begin, end = _part(size, parts)
    count, gap, quota = _asked(row, size, counts, gaps, shares)
    top = _top_of(tops, row, parts)
    if ((count > 0) | (quota > 0) | (gap > -float("inf"))) & (top > -float("inf")) & (top < float("inf")):
        floor = _keys(top + gap).to(tl.int64)
        spared, passed = tl.zeros((), tl.int64), tl.zeros((), tl.int64)
        whole = tl.zeros((), tl.int32)
        if (count > 0) | (quota > 0):
            number = tl.load(taken + row)
            above, need = tl.load(sums + row * 2), tl.load(sums + row * 2 + 1)
            other = tl.arange(0, _MOST_PARTS)
            portion = portions + (row * parts + other) * 3
            low = tl.min(tl.load(portion + 1, mask=other < parts, other=_HIGHEST), 0).to(tl.int64)
            high = tl.max(tl.load(portion + 2, mask=other < parts, other=_LOWEST), 0).to(tl.int64)
            gathered = candidates + row * most
            places = columns + row * most
            if number <= few:
                floor, spared, passed = _among(
                    gathered, places, number, low, high, count, quota, above, need, top, begin, few
                )
            elif number <= most:
                floor, spared, passed = _among(
                    gathered, places, number, low, high, count, quota, above, need, top, begin, most
                )
            elif low == high:
                floor = low
                each = _weights(_logits(low.to(tl.int32)), top)
                if quota > 0:
                    if count > 0:
                        need = _needed(number * each, quota)
                    spared = _spared(number.to(tl.int64), above, need, each)
                passed = tl.sum(tl.load(portion, mask=other < part, other=0), 0).to(tl.int64)
            else:
                whole += 1
        if whole == 0:
            _drop(logits + row * stride, step, begin, end, floor, spared, passed, block)
        elif part == 0:
            _bisected(logits + row * stride, step, size, floor, count, quota, top, block)


@_compiled
def _drop(
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
        keys = _keys(_block(row, step, first, end, block))
        drop = keys < floor
        if passed < spared:
            equal = (keys == floor).to(tl.int32)
            drop |= (equal > 0) & (passed + tl.cumsum(equal, 0) <= spared)
            passed += tl.sum(equal, 0)
        tl.store(row + columns.to(tl.int64) * step, -float("inf"), mask=(columns < end) & drop)


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
    """How many keys of a whole row are at least ``key``, or what they weigh."""
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
    """As :func:`_highest`, over a whole row."""
    while low < high:
        middle = low + (high - low + 1) // 2
        enough = _amount(row, step, size, middle, top, weighted, block) >= need
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle - 1)
    return low


@_compiled
def _bisected(
    row: tl.tensor,
    step: tl.tensor,
    size: tl.tensor,
    floor: tl.tensor,
    count: tl.tensor,
    quota: tl.tensor,
    top: tl.tensor,
    block: tl.constexpr,
) -> None:
    """A whole row, by one program, with 32 sweeps for each of top-k and top-p."""
    high = _keys(top).to(tl.int64)
    spared = tl.zeros((), tl.int64)
    if count > 0:
        floor = _bisect(row, step, size, floor, high, count, top, False, block)
    if quota > 0:
        need = _needed(_amount(row, step, size, floor, top, True, block), quota)
        floor = _bisect(row, step, size, floor, high, need, top, True, block)
        above = _amount(row, step, size, floor + 1, top, True, block)
        equal = _amount(row, step, size, floor, top, False, block)
        equal -= _amount(row, step, size, floor + 1, top, False, block)
        each = (_amount(row, step, size, floor, top, True, block) - above) // equal
        spared = _spared(equal, above, need, each)
    _drop(row, step, tl.zeros((), tl.int32), size, floor, spared, tl.zeros((), tl.int64), block)


def apply(
    logits: Tensor, *, top_k: Tensor | None = None, top_p: Tensor | None = None, min_p: Tensor | None = None
) -> Tensor:
    """As :func:`kernels.nucleus.apply`, on CUDA tensors, without waiting for the device."""
    if logits.dtype != torch.float32:
        raise TypeError(f"logits are {logits.dtype}, not float32")
    reference.check(logits, top_k, top_p, min_p)
    rows, size = logits.shape
    if not rows or not size or (top_k is None and top_p is None and min_p is None):
        return logits
    block = min(BLOCK, triton.next_power_of_2(size))
    parts = max(1, min(PROGRAMS // rows, MOST_PARTS, size // LEAST_PART))
    asked = (
        None if top_k is None else top_k.to(logits.device),
        None if min_p is None else reference.gap(min_p.to(logits.device)),
        None if top_p is None else top_p.to(logits.device, torch.float32),
    )
    where = (logits, *logits.stride(), size, parts)
    tops, bounds = logits.new_empty(2, rows, parts)
    buckets = logits.new_empty(rows, BUCKETS, dtype=torch.int64)
    rests = logits.new_empty(rows, dtype=torch.int64)
    taken = logits.new_empty(rows, dtype=torch.int32)
    sums = logits.new_empty(rows, 2, dtype=torch.int64)
    portions = logits.new_empty(rows, parts, 3, dtype=torch.int32)
    candidates, columns = logits.new_empty(2, rows, CANDIDATES, dtype=torch.int32)
    gathered = (taken, sums, portions, candidates, columns, CANDIDATES)
    grid = (rows * parts,)
    _survey[grid](*where, asked[0], tops, bounds, buckets, rests, taken, BOUNDED, block, **OPTIONS)  # type: ignore[index]
    if top_k is not None or top_p is not None:
        _weigh[grid](*where, *asked, tops, bounds, buckets, rests, block, **OPTIONS)  # type: ignore[index]
        if top_p is not None:
            _weigh_far[grid](*where, *asked, tops, buckets, rests, block, **OPTIONS)  # type: ignore[index]
        _gather[grid](*where, *asked, tops, bounds, buckets, rests, *gathered, block, **OPTIONS)  # type: ignore[index]
    _cut[grid](*where, *asked, tops, *gathered, FEW, block, **OPTIONS)  # type: ignore[index]
    return logits
