"""A batch's rows shared among threads, for numba. A batch is handed over as addresses.

Arrays are taken apart for compiled code in Python's terms, one attribute after another. For a dozen of them that took
as long as two rows' work, and several times that with cold caches, which is how a step of a model leaves them.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, get_thread_id, prange, types
from numba.extending import intrinsic

from kernels.nucleus.lanes import BLOCK
from kernels.nucleus.rows import Row, Scratch, cut, drawn
from kernels.nucleus.sweeps import BINS, SPARE, Longs
from kernels.nucleus.weights import ONE
from kernels.threads import compiled

LEAST_TEMPERATURE = np.float32(1e-5)
"""A row with less is not drawn for: its token is the likeliest, and who asks has it."""
_LINE = 64


class Batch(NamedTuple):
    """Addresses of arrays without gaps, but for the logits, and how many rows of how many logits there are.

    ``logits``: float32, each row ``stride`` after the one before. ``counts``, ``gaps`` and ``quotas``: the limits of
    each row, as :class:`kernels.nucleus.reference.Limits` has them. ``temperatures``, float32, ``seeds`` and
    ``tokens``, int64, are 0 each where rows are to be cut and not drawn from.
    """

    logits: int
    stride: int
    height: int
    size: int
    counts: int
    gaps: int
    quotas: int
    temperatures: int
    seeds: int
    tokens: int


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def _pointer(typing: Any, address: Any) -> tuple[Any, Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@compiled
def _array(address: int, length: int, kind: Any) -> Any:
    return carray(_pointer(address), (length,), kind)


@compiled
def room(size: int) -> int:
    """Bytes that one thread works in, for rows of so many logits."""
    used = 8 * (size + SPARE + BINS) + 4 * (size + SPARE + (size + BLOCK - 1) // BLOCK)
    return int((used + _LINE - 1) // _LINE * _LINE)


@compiled
def _own(scratch: int, size: int, thread: int) -> Scratch:
    weights = scratch + thread * room(size)
    bins = weights + 8 * (size + SPARE)
    keys = bins + 8 * BINS
    tops = keys + 4 * (size + SPARE)
    return Scratch(
        _array(tops, (size + BLOCK - 1) // BLOCK, np.int32),
        _array(keys, size + SPARE, np.int32),
        _array(weights, size + SPARE, np.int64),
        _array(bins, BINS, np.int64),
    )


@compiled
def _row(batch: Batch, row: int) -> Row:
    height, at = batch.height, batch.logits + 4 * row * batch.stride
    return Row(
        _array(at, batch.size, np.float32),
        _array(at, batch.size, np.int32),
        _array(batch.temperatures, height, np.float32)[row] if batch.temperatures else ONE,
        _array(batch.counts, height, np.int64)[row],
        _array(batch.gaps, height, np.float32)[row],
        _array(batch.quotas, height, np.int64)[row],
    )


@compiled
def _chosen(batch: Batch) -> Longs:
    """The rows for which there is something to do."""
    rows, found = np.empty(batch.height, np.int64), 0
    for row in range(batch.height):
        asked = _row(batch, row)
        rows[found] = row
        if batch.seeds:
            found += asked.temperature >= LEAST_TEMPERATURE
        else:
            found += asked.count > 0 or asked.gap > -np.inf or asked.quota > 0
    return rows[:found]


@compiled
def _turn(batch: Batch, row: int, own: Scratch) -> None:
    if batch.seeds:
        seed = _array(batch.seeds, batch.height, np.int64)[row]
        _array(batch.tokens, batch.height, np.int64)[row] = drawn(_row(batch, row), seed, own)
    else:
        cut(_row(batch, row), own)


@compiled
def one_after_another(batch: Batch, scratch: int) -> None:
    """Write -inf over what each row drops or, with seeds, a token of each row where those go.

    ``scratch`` is the address of :func:`room` bytes for each thread.
    """
    for row in _chosen(batch):
        _turn(batch, row, _own(scratch, batch.size, 0))


@partial(compiled, parallel=True)
def in_parallel(batch: Batch, scratch: int) -> None:
    rows = _chosen(batch)
    for turn in prange(len(rows)):
        _turn(batch, rows[turn], _own(scratch, batch.size, get_thread_id()))
