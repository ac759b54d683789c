"""Packed linear layers on CPUs with AMX, whose tiles multiply bfloat16 numbers: each float32 as the sum of three.

A float32 has 24 binary digits and a bfloat16 has 8. So an input is cut in three, digit for digit, and each third's
products with a weight are exact in float32. Tiles take 16 rows by 32 inputs and 32 inputs by 16 outputs at once, and
three of their products are still a third of the time that vectors take for one in float32.

Thirds lie as tiles want them: of every 32 inputs the first third of all rows, then the second, then the last. Weights
lie in panels of ``WIDTH`` outputs, and in these by 32 inputs, pairs of which are side by side as the instruction asks.
The first block of rows waits for memory, so all of them share in fetching the panel that comes next: with many rows all
of it, else as much as tells the CPU what to fetch.
"""

from __future__ import annotations

import ctypes
import logging
from functools import cache

import numpy as np
import torch
from numba import prange
from numba.core.registry import cpu_target
from torch import Tensor

from kernels.linear.cpu import MANY, SHARE, counted
from kernels.linear.reference import Packed, check, narrowed
from kernels.linear.tiles import INPUTS, OUTPUTS, ROWS, TILE, TILES, WIDTH, block_sums, configure, configured, cut
from kernels.threads import Launching, compiled, threads

log = logging.getLogger(__name__)

MOST = 160
"""Rows at a time: so many 1,536 inputs long stay in an L2 cache of 2 MiB, and memory for thirds has a bound."""
TOGETHER = 4
"""Threads up to which each cuts all inputs for itself. To have them cut by the other core, who must then be waited
for and asked for each line of them, took two cores longer; more cores were not tried."""

FETCHED = 1024
"""Bytes of each step's 4,096 that are asked for ahead of time, below ``MANY`` rows. The CPU sees where that leads and
brings the rest by itself; to ask for all of it takes longer."""

_shapes = np.zeros((ROWS + 1, 64), np.uint8)
"""What a core is told of its tiles for each number of rows: Intel's palette 1, bytes of a row, and rows."""
for _rows in range(1, ROWS + 1):
    _shapes[_rows, 0] = 1
    _shapes[_rows, 16:32].view(np.uint16)[:] = 64
    _shapes[_rows, 48:56] = [_rows] * 7 + [INPUTS // 2]
_SHAPES: int = _shapes.ctypes.data
_taken = np.zeros(1, np.int64)
_TAKEN_AT: int = _taken.ctypes.data
_room = torch.empty(0, dtype=torch.uint8, device="cpu")
"""For thirds, of whoever has the threads."""


@cache
def usable() -> bool:
    """Whether this CPU has the tiles, and the system lets this process use them. ``NUMBA_CPU_FEATURES`` may say no."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    if not {"+amx-tile", "+amx-bf16", "+avx512f"} <= set(features):
        return False
    # Linux keeps the tiles' 8 KiB for those alone who ask: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
    system = ctypes.CDLL(None, use_errno=True)
    if system.syscall(158, 0x1023, 18):
        log.warning("the system refuses the CPU's tiles (errno %d): products take longer", ctypes.get_errno())
        return False
    return True


@compiled
def _thirds(inputs: int, thirds: int, rows: int, columns: int, first: int, last: int) -> None:
    """Of the steps ``first`` to ``last``."""
    for step in range(first, last):
        left = columns - INPUTS * step
        place = thirds + 3 * 2 * INPUTS * rows * step
        for row in range(rows):
            source = inputs + 4 * (row * columns + INPUTS * step)
            cut(source, place + 2 * INPUTS * row, 2 * INPUTS * rows, left)
            cut(source + 64, place + 2 * INPUTS * row + 32, 2 * INPUTS * rows, left - 16)


@compiled
def _part(
    thirds: int, weight: int, outputs: int, rows: int, steps: int, panels: int, shapes: int, first: int, last: int
) -> None:
    """Units ``first`` to ``last``: a panel's blocks of rows one after the other, or, of one block, a panel's halves.

    Two halves of a panel are multiplied at once, so that weights are read in the order in which they lie.
    """
    blocks = (rows + ROWS - 1) // ROWS
    stride = 4 * panels * WIDTH
    step = TILES * TILE
    share = ((step // 64 + blocks - 1) // blocks) * 64
    some = step if rows >= MANY else max(64, FETCHED // blocks // 64 * 64)
    told = 0
    unit = first
    while unit < last:
        if blocks == 1:
            above, height = 0, rows
            here = weight + unit // 2 * steps * step + unit % 2 * (step // 2)
            column, whole = unit * WIDTH // 2, 1 - unit % 2 if unit + 1 < last else 0
            unit += 1 + whole
            ahead = weight + unit // 2 * steps * step + unit % 2 * (step // 2)
            fetched = some if unit < last else 0
        else:
            panel, block = unit // blocks, unit % blocks
            above = rows * block // blocks
            height = rows * (block + 1) // blocks - above
            here = weight + panel * steps * step
            ahead = here + steps * step + block * share
            fetched, column, whole = min(some, share, step - block * share), panel * WIDTH, 1
            unit += 1
        if told != height:
            configure(shapes + 64 * height)
            told = height
        place = outputs + above * stride + 4 * column
        block_sums(thirds + 2 * INPUTS * above, here, place, ahead, fetched, steps, rows, stride, whole)


@compiled
def _units(rows: int, panels: int) -> int:
    blocks = (rows + ROWS - 1) // ROWS
    return 2 * panels if blocks == 1 else panels * blocks


@compiled
def _pieces(
    thirds: int, weight: int, outputs: int, rows: int, steps: int, panels: int, shapes: int, counter: int
) -> None:
    """One piece after another until all units are taken, as in :mod:`kernels.linear.cpu`."""
    units = _units(rows, panels)
    piece = first = 0
    while first < units:
        mine = counted(counter)
        while piece < mine:
            first += max(1, (units - first) // SHARE)
            piece += 1
        if first < units:
            last = first + max(1, (units - first) // SHARE)
            _part(thirds, weight, outputs, rows, steps, panels, shapes, first, last)


@compiled
def _multiply(
    thirds: int,
    weight: int,
    outputs: int,
    rows: int,
    steps: int,
    panels: int,
    shapes: int,
    counter: int,
    before: int,
    share: int,
    shares: int,
) -> None:
    """A share, or without many rows a fixed one. ``before``: 64 bytes for what the tiles were."""
    configured(before)
    if rows < MANY:
        units = _units(rows, panels)
        first, last = units * share // shares, units * (share + 1) // shares
        _part(thirds, weight, outputs, rows, steps, panels, shapes, first, last)
    else:
        _pieces(thirds, weight, outputs, rows, steps, panels, shapes, counter)
    configure(before)


def _each_for_itself(
    inputs: int,
    room: int,
    size: int,
    weight: int,
    outputs: int,
    rows: int,
    columns: int,
    panels: int,
    shapes: int,
    counter: int,
    shares: int,
) -> None:
    steps = (columns + INPUTS - 1) // INPUTS
    for share in prange(shares):
        own = room + size * share
        _thirds(inputs, own + 64, rows, columns, 0, steps)
        _multiply(own + 64, weight, outputs, rows, steps, panels, shapes, counter, own, share, shares)


def _cut_together(inputs: int, thirds: int, rows: int, columns: int, steps: int, shares: int) -> None:
    for share in prange(shares):
        _thirds(inputs, thirds, rows, columns, steps * share // shares, steps * (share + 1) // shares)


def _multiplied_together(
    thirds: int,
    weight: int,
    outputs: int,
    rows: int,
    steps: int,
    panels: int,
    shapes: int,
    counter: int,
    before: int,
    shares: int,
) -> None:
    for share in prange(shares):
        own = before + 64 * share
        _multiply(thirds, weight, outputs, rows, steps, panels, shapes, counter, own, share, shares)


_own = compiled(_each_for_itself, parallel=True)
_cut_by_all = compiled(_cut_together, parallel=True)
_multiplied_by_all = compiled(_multiplied_together, parallel=True)


def pack(weight: Tensor) -> Packed | None:
    """[panels, steps of 32 inputs, tiles, pairs of inputs, outputs, 2], filled up with zeros.

    ``None`` for a weight with an infinite number too: times an input's second third, which may be 0, it is NaN.
    Raises ``RuntimeError`` where it is not :func:`usable`.
    """
    if not usable():
        raise RuntimeError("this CPU has no tiles of bfloat16, or this process may not use them")
    narrow = narrowed(weight.detach())
    if narrow is None or not narrow.isfinite().all():
        return None
    outputs, inputs = weight.shape
    panels, steps = -(-outputs // WIDTH), -(-inputs // INPUTS)
    whole = narrow.new_zeros(panels * WIDTH, steps * INPUTS)
    whole[:outputs, :inputs] = narrow
    tiles = whole.view(panels, TILES, OUTPUTS, steps, INPUTS // 2, 2)
    return Packed(tiles.permute(0, 3, 1, 4, 2, 5).contiguous(), outputs, inputs)


def apply(inputs: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    """As :func:`kernels.linear.apply`, on CPU tensors."""
    check(inputs, packed)
    return product(inputs, packed.data, packed.outputs, bias)


def product(inputs: Tensor, data: Tensor, outputs: int, bias: Tensor | None = None) -> Tensor:
    """The same, of inputs that are known to fit."""
    lines = inputs.contiguous()
    columns, panels = inputs.shape[-1], data.shape[0]
    rows = lines.numel() // columns
    sums = lines.new_empty((*inputs.shape[:-1], panels * WIDTH))
    chunks = -(-rows // MOST)
    for chunk in range(chunks):
        above = rows * chunk // chunks
        height = rows * (chunk + 1) // chunks - above
        places = lines.data_ptr() + 4 * above * columns, data.data_ptr(), sums.data_ptr() + 4 * above * panels * WIDTH
        _chunk(*places, height, columns, panels)
    if outputs < panels * WIDTH:
        sums = sums[..., :outputs].contiguous()
    return sums if bias is None else sums.add_(bias)


def _chunk(inputs: int, weight: int, outputs: int, rows: int, columns: int, panels: int) -> None:
    """Up to MOST rows."""
    global _room
    steps = -(-columns // INPUTS)
    size = 64 + 3 * 2 * INPUTS * rows * steps
    shares = threads(_units(rows, panels))
    if shares == 1:
        own, counter = _aligned(size), np.zeros(1, np.int64)
        room, counted_at = _start(own), counter.ctypes.data
        _thirds(inputs, room + 64, rows, columns, 0, steps)
        _multiply(room + 64, weight, outputs, rows, steps, panels, _SHAPES, counted_at, room, 0, 1)
        return
    with Launching(shares):
        needed = size * shares if shares <= TOGETHER else size + 64 * shares
        if _room.numel() < needed + 64:
            _room = _aligned(needed)
        room = _start(_room)
        _taken[0] = 0
        if shares <= TOGETHER:
            _own(inputs, room, size, weight, outputs, rows, columns, panels, _SHAPES, _TAKEN_AT, shares)
        else:
            thirds = room + 64 * shares
            _cut_by_all(inputs, thirds, rows, columns, steps, shares)
            _multiplied_by_all(thirds, weight, outputs, rows, steps, panels, _SHAPES, _TAKEN_AT, room, shares)


def _aligned(size: int) -> Tensor:
    """Room for so many bytes, from a line of the cache on."""
    return torch.empty(size + 64, dtype=torch.uint8, device="cpu")


def _start(room: Tensor) -> int:
    address: int = room.data_ptr()
    return -(-address // 64) * 64


def warm() -> None:
    """Compile everything, or load it from numba's cache, and start the threads."""
    packed = Packed(torch.zeros(2, 1, TILES, 16, OUTPUTS, 2, dtype=torch.bfloat16, device="cpu"), 2 * WIDTH, 1)
    inputs = torch.zeros(1, 1, dtype=torch.float32, device="cpu")
    apply(inputs, packed)
    room = _aligned(64)
    before = _start(room)
    _thirds(0, 0, 0, 1, 0, 0)
    _multiply(0, 0, 0, 0, 1, 0, _SHAPES, 0, before, 0, 1)
    if (shares := threads(TOGETHER + 1)) > TOGETHER:
        with Launching(shares):
            _cut_by_all(0, 0, 0, 1, 0, 1)
            _multiplied_by_all(0, 0, 0, 0, 1, 0, _SHAPES, 0, before, 1)
