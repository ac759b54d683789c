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

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.nucleus import reference
from kernels.nucleus.triton_blocks import compiled, drop, keys_of, logits_of, needed, read_block, spared_of, weights_of
from kernels.nucleus.triton_threshold import among, bisected

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


@compiled
def _bucket(logits: tl.tensor, top: tl.tensor) -> tl.tensor:
    """By distance from the largest logit, which has bucket 0."""
    bits = ((top - logits) + 1.0).to(tl.int32, bitcast=True)
    return tl.minimum((bits - _ONE) >> _BUCKET_BITS, _BUCKETS - 1)


@compiled
def _part(size: tl.tensor, parts: tl.tensor) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Which row this program works at, which part of it, and from which column to which."""
    length = tl.cdiv(size, parts)
    part = tl.program_id(0) % parts
    return (tl.program_id(0) // parts).to(tl.int64), part, part * length, tl.minimum((part + 1) * length, size)


@compiled
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


@compiled
def _top_of(tops: tl.tensor, row: tl.tensor, parts: tl.tensor) -> tl.tensor:
    """A row's largest logit; +inf where it has a fault."""
    part = tl.arange(0, _MOST_PARTS)
    return tl.max(tl.load(tops + row * parts + part, mask=part < parts, other=-float("inf")), 0)


@compiled
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
        found = read_block(logits + row * stride, step, first, end, block)
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


@compiled
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
        floor = keys_of(top + gap)
        target = buckets + row * _BUCKETS
        if count > 0:
            other = tl.arange(0, _MOST_PARTS)
            bound = tl.min(tl.load(bounds + row * parts + other, mask=other < parts, other=float("inf")), 0)
            for first in range(begin, end, block):
                found = read_block(logits + row * stride, step, first, end, block)
                adds = (found > -float("inf")) & (found >= bound) & (keys_of(found) >= floor)
                tl.atomic_add(target + _bucket(found, top), tl.full((block,), 1, tl.int64), mask=adds, sem="relaxed")
        else:
            rest = tl.zeros((block,), tl.int64)
            for first in range(begin, end, block):
                found = read_block(logits + row * stride, step, first, end, block)
                bucket = _bucket(found, top)
                amount = tl.where(keys_of(found) >= floor, weights_of(found, top), 0)
                near = bucket < _NEAR
                tl.atomic_add(target + bucket, amount, mask=near & (amount > 0), sem="relaxed")
                rest += tl.where(near, 0, amount)
            tl.atomic_add(rests + row, tl.sum(rest, 0), sem="relaxed")


@compiled
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
        if near < needed(near + tl.load(rests + row), quota):
            floor = keys_of(top + gap)
            for first in range(begin, end, block):
                found = read_block(logits + row * stride, step, first, end, block)
                bucket = _bucket(found, top)
                amount = tl.where((bucket >= _NEAR) & (keys_of(found) >= floor), weights_of(found, top), 0)
                tl.atomic_add(buckets + row * _BUCKETS + bucket, amount, mask=amount > 0, sem="relaxed")


@compiled
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
        floor = keys_of(top + gap)
        place = tl.arange(0, _BUCKETS)
        amounts = tl.load(buckets + row * _BUCKETS + place)
        if count > 0:
            need = tl.minimum(count, tl.sum(amounts, 0))
        else:
            # The others are part of the rest, whether or not they were weighed.
            near = tl.sum(tl.where(place < _NEAR, amounts, 0), 0)
            need = needed(near + tl.load(rests + row), quota)
        last = tl.sum((tl.cumsum(amounts, 0) < need).to(tl.int32), 0)
        nearest = tl.where(count > 0, 0, last)
        if part == 0:
            above = tl.sum(tl.where(place < nearest, amounts, 0), 0)
            tl.store(sums + row * 2, above)
            tl.store(sums + row * 2 + 1, need)
        if count > 0:
            other = tl.arange(0, _MOST_PARTS)
            bound = tl.min(tl.load(bounds + row * parts + other, mask=other < parts, other=float("inf")), 0)
            floor = tl.maximum(floor, keys_of(bound))
        own = tl.zeros((), tl.int32)
        low, high = tl.full((), _HIGHEST, tl.int32), tl.full((), _LOWEST, tl.int32)
        for first in range(begin, end, block):
            found = read_block(logits + row * stride, step, first, end, block)
            keys, bucket = keys_of(found), _bucket(found, top)
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


@compiled
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
        floor = keys_of(top + gap).to(tl.int64)
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
                floor, spared, passed = among(
                    gathered, places, number, low, high, count, quota, above, need, top, begin, few
                )
            elif number <= most:
                floor, spared, passed = among(
                    gathered, places, number, low, high, count, quota, above, need, top, begin, most
                )
            elif low == high:
                floor = low
                each = weights_of(logits_of(low.to(tl.int32)), top)
                if quota > 0:
                    if count > 0:
                        need = needed(number * each, quota)
                    spared = spared_of(number.to(tl.int64), above, need, each)
                passed = tl.sum(tl.load(portion, mask=other < part, other=0), 0).to(tl.int64)
            else:
                whole += 1
        if whole == 0:
            drop(logits + row * stride, step, begin, end, floor, spared, passed, block)
        elif part == 0:
            bisected(logits + row * stride, step, size, floor, count, quota, top, block)


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
