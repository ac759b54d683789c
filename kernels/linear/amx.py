"""Packed linear layers on CPUs with AMX, whose tiles multiply bfloat16 numbers: each float32 as the sum of three.

A float32 has 24 binary digits and a bfloat16 has 8. So an input is cut in three, digit for digit, and each third's
products with a weight are exact in float32. Tiles take 16 rows by 32 inputs and 32 inputs by 16 outputs at once, and
three of their products are still a third of the time that vectors take for one in float32.

Thirds lie as tiles want them: of every 32 inputs the first third of all rows, then the second, then the last. Weights
lie in panels of ``WIDTH`` outputs, and in these by 32 inputs, pairs of which are side by side as the instruction asks.
The first block of rows waits for memory, so all of them share in fetching the panel that comes next.
"""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from torch import Tensor

from kernels.linear.cpu import MANY, SHARE, counted
from kernels.linear.reference import Packed, check, narrowed
from kernels.threads import Launching, compiled, threads

log = logging.getLogger(__name__)

ROWS, INPUTS, OUTPUTS = 16, 32, 16
"""Of a tile: of the inputs, of both factors, and of the result."""
TILES = 4
"""Of sums, in four of the CPU's eight; three hold an input's thirds and one the weights. A tile's sum takes 52 cycles
and a new one may start every 16, so that fewer would wait for each other."""
WIDTH = TILES * OUTPUTS
TILE = 1024
"""Bytes of a whole tile."""
MOST = 160
"""Rows at a time: so many 1,536 inputs long stay in an L2 cache of 2 MiB, and memory for thirds has a bound."""
TOGETHER = 4
"""Threads up to which each cuts all inputs for itself. To have them cut by the other core, who must then be waited
for and asked for each line of them, took two cores longer."""

_BYTE, _I32, _I64, _VOID = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.VoidType()
_PLACE = _BYTE.as_pointer()
_FLOATS = ir.VectorType(ir.FloatType(), 16)
_HALVES = ir.VectorType(ir.IntType(16), 16)
_WORDS = ir.VectorType(_I32, 16)
_FLAGS = ir.VectorType(ir.IntType(1), 16)
_TO_READ = [ir.Constant(_I32, word) for word in (0, 2, 1)]
"""What LLVM's prefetch is told: it will be read, from the L2 cache, and is data. The L1 cache has too few misses at a
time."""

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


def _number(value: int) -> Any:
    return ir.Constant(_I64, value)


def _external(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), f"llvm.{name}")


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def _configure(typing: Any, shape: Any) -> tuple[Any, Any]:
    """Tell the core its tiles' shapes, which empties them. Zeros: that there are none."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        told = _external(builder, "x86.ldtilecfg", _VOID, _PLACE)
        builder.call(told, [builder.inttoptr(arguments[0], _PLACE)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def _configured(typing: Any, place: Any) -> tuple[Any, Any]:
    """Write there what the core was told last, by another library that thinks that it still holds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        asked = _external(builder, "x86.sttilecfg", _VOID, _PLACE)
        builder.call(asked, [builder.inttoptr(arguments[0], _PLACE)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def _cut(typing: Any, inputs: Any, thirds: Any, apart: Any, count: Any) -> tuple[Any, Any]:
    """16 inputs, of which ``count`` are there and the others 0, in three; a third of them each ``apart`` bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, place, apart, count = arguments

        def all_of(word: int) -> Any:
            return ir.Constant(_WORDS, [word] * 16)

        nothing = ir.Constant(_WORDS, ir.Undefined)
        first = builder.insert_element(nothing, builder.trunc(count, _I32), ir.Constant(_I32, 0))
        counts = builder.shuffle_vector(first, nothing, all_of(0))
        there = builder.icmp_signed("<", ir.Constant(_WORDS, list(range(16))), counts)
        load = _external(builder, "masked.load.v16f32.p0", _FLOATS, _FLOATS.as_pointer(), _I32, _FLAGS, _FLOATS)
        zeros = ir.Constant(_FLOATS, [0.0] * 16)
        numbers = builder.call(
            load, [builder.inttoptr(source, _FLOATS.as_pointer()), ir.Constant(_I32, 4), there, zeros]
        )
        exponent = all_of(0x7F800000)
        finite = builder.icmp_unsigned("!=", builder.and_(builder.bitcast(numbers, _WORDS), exponent), exponent)
        # What is cut off a NaN may be all that made it one.
        quiet = builder.select(
            builder.fcmp_unordered("uno", numbers, numbers),
            ir.Constant(_HALVES, [0x40] * 16),
            ir.Constant(_HALVES, [0] * 16),
        )
        rest = numbers
        for third in range(3):
            words = builder.bitcast(rest, _WORDS)
            upper = builder.trunc(builder.lshr(words, all_of(16)), _HALVES)
            if third == 0:
                upper = builder.or_(upper, quiet)
            builder.store(upper, builder.inttoptr(place, _HALVES.as_pointer()), align=32)
            place = builder.add(place, apart)
            kept = builder.bitcast(builder.and_(words, all_of(0xFFFF0000)), _FLOATS)
            # An infinity has no rest: less itself it would be NaN.
            rest = builder.select(finite, builder.fsub(rest, kept), zeros)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def _sums(
    typing: Any,
    thirds: Any,
    panel: Any,
    outputs: Any,
    ahead: Any,
    share: Any,
    steps: Any,
    rows: Any,
    stride: Any,
    whole: Any,
) -> tuple[Any, Any]:
    """A block of rows times a panel, or times half of one, while ``share`` bytes a step are fetched from ``ahead`` on.

    Addresses; then ``rows`` of all blocks, the ``stride`` of the outputs in bytes, and whether it is a ``whole`` panel.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *places, whole = arguments
        after, half = builder.append_basic_block("after"), builder.append_basic_block("half")
        cases = builder.switch(whole, half)
        for tiles in (TILES, TILES // 2):
            block = builder.append_basic_block("whole") if tiles == TILES else half
            if tiles == TILES:
                cases.add_case(_number(1), block)
            builder.position_at_end(block)
            _products(builder, tiles, *places)
            builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), generate


def _products(
    builder: Any,
    tiles: int,
    thirds: Any,
    panel: Any,
    outputs: Any,
    ahead: Any,
    share: Any,
    steps: Any,
    rows: Any,
    stride: Any,
) -> None:
    """Write the loop over the steps of 32 inputs, for so many tiles of sums."""
    empty = _external(builder, "x86.tilezero", _VOID, _BYTE)
    load = _external(builder, "x86.tileloadd64", _VOID, _BYTE, _PLACE, _I64)
    multiply = _external(builder, "x86.tdpbf16ps", _VOID, _BYTE, _BYTE, _BYTE)
    store = _external(builder, "x86.tilestored64", _VOID, _BYTE, _PLACE, _I64)
    fetch = _external(builder, "prefetch.p0", _VOID, _PLACE, _I32, _I32, _I32)

    def tile(index: int) -> Any:
        return ir.Constant(_BYTE, index)

    def at(address: Any, offset: Any) -> Any:
        return builder.inttoptr(builder.add(address, offset), _PLACE)

    for index in range(tiles):
        builder.call(empty, [tile(index)])
    third = builder.mul(rows, _number(2 * INPUTS))
    before, loop = builder.block, builder.append_basic_block("step")
    line, following = builder.append_basic_block("line"), builder.append_basic_block("following")
    end = builder.append_basic_block("end")
    builder.branch(loop)

    builder.position_at_end(loop)
    step = builder.phi(_I64)
    inputs, weights = builder.phi(_I64), builder.phi(_I64)
    for index in range(3):
        source = at(inputs, builder.mul(third, _number(index)))
        builder.call(load, [tile(TILES + index), source, _number(2 * INPUTS)])
    for index in range(tiles):
        builder.call(load, [tile(7), at(weights, _number(TILE * index)), _number(TILE // ROWS)])
        for smallest_first in (2, 1, 0):
            builder.call(multiply, [tile(index), tile(TILES + smallest_first), tile(7)])
    target = builder.add(ahead, builder.mul(step, _number(TILES * TILE)))
    builder.cbranch(builder.icmp_signed(">", share, _number(0)), line, following)

    builder.position_at_end(line)
    offset = builder.phi(_I64)
    builder.call(fetch, [at(target, offset), *_TO_READ])
    further = builder.add(offset, _number(64))
    offset.add_incoming(_number(0), loop)
    offset.add_incoming(further, line)
    builder.cbranch(builder.icmp_signed("<", further, share), line, following)

    builder.position_at_end(following)
    for now, first, advance in (
        (step, _number(0), _number(1)),
        (inputs, thirds, builder.mul(third, _number(3))),
        (weights, panel, _number(TILES * TILE)),
    ):
        now.add_incoming(first, before)
        now.add_incoming(builder.add(now, advance), following)
    builder.cbranch(builder.icmp_signed("<", builder.add(step, _number(1)), steps), loop, end)

    builder.position_at_end(end)
    for index in range(tiles):
        builder.call(store, [tile(index), at(outputs, _number(4 * OUTPUTS * index)), stride])


@compiled
def _thirds(inputs: int, thirds: int, rows: int, columns: int, first: int, last: int) -> None:
    """Of the steps ``first`` to ``last``."""
    for step in range(first, last):
        left = columns - INPUTS * step
        place = thirds + 3 * 2 * INPUTS * rows * step
        for row in range(rows):
            source = inputs + 4 * (row * columns + INPUTS * step)
            _cut(source, place + 2 * INPUTS * row, 2 * INPUTS * rows, left)
            _cut(source + 64, place + 2 * INPUTS * row + 32, 2 * INPUTS * rows, left - 16)


@compiled
def _part(
    thirds: int, weight: int, outputs: int, rows: int, steps: int, panels: int, shapes: int, first: int, last: int
) -> None:
    """Units ``first`` to ``last``: a panel's blocks of rows one after the other, or, of one block, a panel's halves."""
    blocks = (rows + ROWS - 1) // ROWS
    stride = 4 * panels * WIDTH
    step = TILES * TILE
    share = ((step // 64 + blocks - 1) // blocks) * 64
    told = 0
    for unit in range(first, last):
        if blocks == 1:
            above, height = 0, rows
            here = weight + unit // 2 * steps * step + unit % 2 * (step // 2)
            ahead = weight + (unit + 1) // 2 * steps * step + (unit + 1) % 2 * (step // 2)
            fetched, column, whole = step // 2, unit * WIDTH // 2, 0
        else:
            panel, block = unit // blocks, unit % blocks
            above = rows * block // blocks
            height = rows * (block + 1) // blocks - above
            here = weight + panel * steps * step
            ahead = here + steps * step + block * share
            fetched, column, whole = min(share, step - block * share), panel * WIDTH, 1
        if told != height:
            _configure(shapes + 64 * height)
            told = height
        place = outputs + above * stride + 4 * column
        _sums(thirds + 2 * INPUTS * above, here, place, ahead, fetched, steps, rows, stride, whole)


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
    _configured(before)
    if rows < MANY:
        units = _units(rows, panels)
        first, last = units * share // shares, units * (share + 1) // shares
        _part(thirds, weight, outputs, rows, steps, panels, shapes, first, last)
    else:
        _pieces(thirds, weight, outputs, rows, steps, panels, shapes, counter)
    _configure(before)


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
