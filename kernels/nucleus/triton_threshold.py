"""Where a row's threshold is on a GPU: among the tokens that were gathered of it, or in the whole row."""

from __future__ import annotations

import triton.language as tl

from kernels.nucleus.triton_blocks import (
    compiled,
    drop,
    keys_of,
    logits_of,
    needed,
    read_block,
    spared_of,
    weights_of,
)

_LOWEST = tl.constexpr(-(1 << 31))


@compiled
def _highest(keys: tl.tensor, amounts: tl.tensor, low: tl.tensor, high: tl.tensor, need: tl.tensor) -> tl.tensor:
    """The largest key from ``low`` to ``high`` from which on the amounts add up to ``need``; ``low`` where none has."""
    while low < high:
        middle = low + (high - low + 1) // 2
        enough = tl.sum(tl.where(keys >= middle.to(tl.int32), amounts, 0), 0) >= need
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle - 1)
    return low


@compiled
def among(
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
        amounts = tl.where(within, weights_of(logits_of(keys), top), 0)
        if count > 0:
            need = needed(tl.sum(tl.where(keys >= floor.to(tl.int32), amounts, 0), 0), quota)
        floor = _highest(keys, amounts, floor, high, need - above)
        equal = within & (keys == floor.to(tl.int32))
        above += tl.sum(tl.where(keys > floor.to(tl.int32), amounts, 0), 0)
        spared = spared_of(tl.sum(equal.to(tl.int64), 0), above, need, tl.max(tl.where(equal, amounts, 1), 0))
        if spared > 0:
            column = tl.load(columns + place, mask=within, other=0)
            passed = tl.sum((equal & (column < begin)).to(tl.int64), 0)
    return floor, spared, passed


@compiled
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
        logits = read_block(row, step, first, size, block)
        if weighted:
            sums += tl.where(keys_of(logits) >= key, weights_of(logits, top), 0)
        else:
            sums += (keys_of(logits) >= key).to(tl.int64)
    return tl.sum(sums, 0)


@compiled
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


@compiled
def bisected(
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
    high = keys_of(top).to(tl.int64)
    spared = tl.zeros((), tl.int64)
    if count > 0:
        floor = _bisect(row, step, size, floor, high, count, top, False, block)
    if quota > 0:
        need = needed(_amount(row, step, size, floor, top, True, block), quota)
        floor = _bisect(row, step, size, floor, high, need, top, True, block)
        above = _amount(row, step, size, floor + 1, top, True, block)
        equal = _amount(row, step, size, floor, top, False, block)
        equal -= _amount(row, step, size, floor + 1, top, False, block)
        each = (_amount(row, step, size, floor, top, True, block) - above) // equal
        spared = spared_of(equal, above, need, each)
    drop(row, step, tl.zeros((), tl.int32), size, floor, spared, tl.zeros((), tl.int64), block)
