"""Packed linear layers on CPUs: a tile of sums in registers, written in LLVM's terms, parallel over tiles by numba.

A panel of ``WIDTH`` outputs is read front to back, input by input. Each of its vectors of bfloat16 is widened (a shift
by 16 bits) and multiplied with up to ``HEIGHT`` rows of the inputs, whose sums stay in registers until the panel ends.
numba would spill such a tile: loops that it unrolls become arrays. So the tile is built as LLVM instructions, one
function with a case for each number of rows.

The first block of rows reads a panel from memory and waits for it; the others find it in the cache and wait for
nothing but products. So the blocks share in fetching the panel that comes next, and neither is left idle.

With many rows a product takes about as long as a core is taken away for, when somebody else has something to do. So
threads take their tiles piece by piece then, and what one did not come to the others do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from torch import Tensor

from kernels.linear.reference import Packed, check, narrowed
from kernels.threads import Launching, compiled, threads

# What numba compiles for, which NUMBA_CPU_FEATURES may narrow. The key of its cache says the same: a tile of another
# shape, left by another CPU that shares the folder, is never loaded.
_WIDE = "+avx512f" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")
LANES = 16 if _WIDE else 8
"""Numbers in a vector: 512 bits where the CPU has them. What has less than 256 is served by pairs of its own."""
VECTORS, HEIGHT = (3, 9) if _WIDE else (2, 6)
"""Of sums, in registers: 27 of AVX-512's 32 and 12 of AVX2's 16. The rest holds the weights and an input. On a Zen 4,
3 by 9 was the fastest of 4 by 6, 3 by 8, 2 by 12 and 2 by 14."""
WIDTH = VECTORS * LANES

MANY = 96
"""Rows from which on tiles are taken piece by piece. With 64 that gains nothing, however busy the machine."""
SHARE = 3
"""A piece is one in so many of the tiles that are left: large ones first, which read on in a panel."""
_taken = np.zeros(1, np.int64)
"""How many pieces were, of the product that is under way..."""
_TAKEN_AT: int = _taken.ctypes.data
"""...and its address."""

_F32, _BYTE, _I32, _I64 = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_FLOATS = ir.VectorType(_F32, LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)
_WORDS = ir.VectorType(_I32, LANES)
_TO_READ = [ir.Constant(_I32, word) for word in (0, 3, 1)]
"""What LLVM's prefetch is told: it will be read, soon, and is data. An address that is nobody's is no error to it."""


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def _tile(
    typing: Any, inputs: Any, panel: Any, outputs: Any, ahead: Any, share: Any, columns: Any, stride: Any, rows: Any
) -> tuple[Any, Any]:
    """``rows`` (1 to HEIGHT) times a panel, while ``share`` bytes a column are fetched from ``ahead`` on.

    Addresses, then ``columns`` of the inputs and ``stride`` of the outputs.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *places, height = arguments
        after = builder.append_basic_block("after")
        cases = builder.switch(height, after)
        for count in range(1, HEIGHT + 1):
            block = builder.append_basic_block(f"rows{count}")
            cases.add_case(ir.Constant(_I64, count), block)
            builder.position_at_end(block)
            _sums(builder, count, *places)
            builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


def _sums(
    builder: Any, rows: int, inputs: Any, panel: Any, outputs: Any, ahead: Any, share: Any, columns: Any, stride: Any
) -> None:
    """Write the loop over the columns, for so many rows."""

    def at(address: Any, offset: Any, kind: Any) -> Any:
        return builder.inttoptr(builder.add(address, offset), kind.as_pointer())

    def number(value: int) -> Any:
        return ir.Constant(_I64, value)

    fused = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_FLOATS, [_FLOATS] * 3), f"llvm.fma.v{LANES}f32"
    )
    fetch = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), *[_I32] * 3]), "llvm.prefetch.p0i8"
    )
    lines = [builder.add(inputs, builder.mul(columns, number(4 * row))) for row in range(rows)]
    before, loop = builder.block, builder.append_basic_block("column")
    end = builder.append_basic_block("end")
    builder.branch(loop)

    builder.position_at_end(loop)
    column = builder.phi(_I64)
    sums = [[builder.phi(_FLOATS) for _ in range(VECTORS)] for _ in range(rows)]
    builder.call(fetch, [at(ahead, builder.mul(column, share), _BYTE), *_TO_READ])
    weights = []
    for vector in range(VECTORS):
        offset = builder.add(builder.mul(column, number(2 * WIDTH)), number(2 * LANES * vector))
        halves = builder.load(at(panel, offset, _HALVES), align=2)
        words = builder.shl(builder.zext(halves, _WORDS), ir.Constant(_WORDS, [16] * LANES))
        weights.append(builder.bitcast(words, _FLOATS))
    grown: list[list[Any]] = []
    for line in lines:
        single = builder.load(at(line, builder.mul(column, number(4)), _F32), align=4)
        first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), single, ir.Constant(_I32, 0))
        spread = builder.shuffle_vector(first, ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_WORDS, [0] * LANES))
        own = sums[len(grown)]
        grown.append([builder.call(fused, [spread, weights[v], own[v]]) for v in range(VECTORS)])
    following = builder.add(column, number(1))
    column.add_incoming(number(0), before)
    column.add_incoming(following, loop)
    for row in range(rows):
        for vector in range(VECTORS):
            sums[row][vector].add_incoming(ir.Constant(_FLOATS, [0.0] * LANES), before)
            sums[row][vector].add_incoming(grown[row][vector], loop)
    builder.cbranch(builder.icmp_unsigned("<", following, columns), loop, end)

    builder.position_at_end(end)
    for row in range(rows):
        line = builder.add(outputs, builder.mul(stride, number(4 * row)))
        for vector in range(VECTORS):
            builder.store(grown[row][vector], at(line, number(4 * LANES * vector), _FLOATS), align=4)


@compiled
def _part(inputs: int, weight: int, outputs: int, rows: int, columns: int, panels: int, first: int, last: int) -> None:
    """Tiles ``first`` to ``last``, counted panel by panel: a panel's tiles are one thread's as far as can be."""
    blocks = (rows + HEIGHT - 1) // HEIGHT
    stride = panels * WIDTH
    for tile in range(first, last):
        panel, block = tile // blocks, tile % blocks
        above = rows * block // blocks
        height = rows * (block + 1) // blocks - above
        share = 2 * WIDTH // blocks
        _tile(
            inputs + 4 * above * columns,
            weight + 2 * panel * columns * WIDTH,
            outputs + 4 * (above * stride + panel * WIDTH),
            weight + (2 * (panel + 1) * WIDTH + block * share) * columns,
            share,
            columns,
            stride,
            height,
        )


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def counted(typing: Any, counter: Any) -> tuple[Any, Any]:
    """What a counter stood at before it was raised by one, at once for all threads: no two are told the same."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(_I64, 1), "monotonic")

    return types.int64(types.int64), generate


@compiled
def _pieces(inputs: int, weight: int, outputs: int, rows: int, columns: int, panels: int, counter: int) -> None:
    """One piece after another, until all tiles are taken."""
    tiles = panels * ((rows + HEIGHT - 1) // HEIGHT)
    piece = first = 0
    while first < tiles:
        mine = counted(counter)
        while piece < mine:
            first += max(1, (tiles - first) // SHARE)
            piece += 1
        if first < tiles:
            last = first + max(1, (tiles - first) // SHARE)
            _part(inputs, weight, outputs, rows, columns, panels, first, last)


def _parts(inputs: int, weight: int, outputs: int, rows: int, columns: int, panels: int, shares: int) -> None:
    tiles = panels * ((rows + HEIGHT - 1) // HEIGHT)
    for share in prange(shares):
        _part(inputs, weight, outputs, rows, columns, panels, tiles * share // shares, tiles * (share + 1) // shares)


def _by_turns(
    inputs: int, weight: int, outputs: int, rows: int, columns: int, panels: int, counter: int, shares: int
) -> None:
    for _ in prange(shares):
        _pieces(inputs, weight, outputs, rows, columns, panels, counter)


_in_parallel = compiled(_parts, parallel=True)
_in_pieces = compiled(_by_turns, parallel=True)


def pack(weight: Tensor) -> Packed | None:
    """Panel by panel, and in each input by input; the last panel is filled up with zeros."""
    narrow = narrowed(weight.detach())
    if narrow is None:
        return None
    outputs, inputs = weight.shape
    panels = -(-outputs // WIDTH)
    data = narrow.new_zeros(panels, inputs, WIDTH)
    for panel, rows in enumerate(narrow.split(WIDTH)):
        data[panel, :, : len(rows)] = rows.T
    return Packed(data, outputs, inputs)


def apply(inputs: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    """As :func:`kernels.linear.apply`, on CPU tensors."""
    check(inputs, packed)
    return product(inputs, packed.data, packed.outputs, bias)


def product(inputs: Tensor, data: Tensor, outputs: int, bias: Tensor | None = None) -> Tensor:
    """The same, of inputs that are known to fit. A step asks for it a hundred times, and each time waits for Python."""
    lines = inputs.contiguous()
    panels, columns, _ = data.shape
    rows = lines.numel() // columns
    # Whole panels are written. What is beyond the last output is cut off again.
    sums = lines.new_empty((*inputs.shape[:-1], panels * WIDTH))
    if rows:
        tiles = panels * -(-rows // HEIGHT)
        shares = threads(tiles)
        places = lines.data_ptr(), data.data_ptr(), sums.data_ptr()
        if shares == 1:
            _part(*places, rows, columns, panels, 0, tiles)
        elif rows < MANY:
            with Launching(shares):
                _in_parallel(*places, rows, columns, panels, shares)
        else:
            with Launching(shares):
                _taken[0] = 0
                _in_pieces(*places, rows, columns, panels, _TAKEN_AT, shares)
    if outputs < panels * WIDTH:
        sums = sums[..., :outputs].contiguous()
    return sums if bias is None else sums.add_(bias)


def warm() -> None:
    """Compile everything, or load it from numba's cache, and start the threads."""
    packed = Packed(torch.zeros(2, 1, WIDTH, dtype=torch.bfloat16, device="cpu"), 2 * WIDTH, 1)
    for rows in (1, MANY):
        apply(torch.zeros(rows, 1, dtype=torch.float32, device="cpu"), packed)
    _part(0, 0, 0, 0, 1, 0, 0, 0)
