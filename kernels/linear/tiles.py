"""AMX's instructions for numba: shapes of tiles, float32 numbers in three, and a block of rows times a panel.

As LLVM's intrinsics that name the tiles themselves: who uses one has told the core its shape.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS, INPUTS, OUTPUTS = 16, 32, 16
"""Of a tile: of the inputs, of both factors, and of the result."""
TILES = 4
"""Of sums, in four of the CPU's eight; three hold an input's thirds and one the weights. A sum is there much later
than the next may start, so that two would wait for each other."""
WIDTH = TILES * OUTPUTS
TILE = 1024
"""Bytes of a whole tile."""
_BYTE, _I32, _I64, _VOID = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.VoidType()
_PLACE = _BYTE.as_pointer()
_FLOATS = ir.VectorType(ir.FloatType(), 16)
_HALVES = ir.VectorType(ir.IntType(16), 16)
_WORDS = ir.VectorType(_I32, 16)
_FLAGS = ir.VectorType(ir.IntType(1), 16)
_TO_READ = [ir.Constant(_I32, word) for word in (0, 2, 1)]
"""What LLVM's prefetch is told: it will be read, from the L2 cache, and is data. The L1 cache has too few misses at a
time."""


def _number(value: int) -> Any:
    return ir.Constant(_I64, value)


def _external(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), f"llvm.{name}")


def _told(instruction: str) -> Any:
    """Of an address of 64 bytes that say what a core's tiles are."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        called = _external(builder, instruction, _VOID, _PLACE)
        builder.call(called, [builder.inttoptr(arguments[0], _PLACE)])
        return context.get_dummy_value()

    return generate


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def configure(typing: Any, shape: Any) -> tuple[Any, Any]:
    """Tell the core its tiles' shapes, which empties them. Zeros: that there are none."""
    return types.void(types.int64), _told("x86.ldtilecfg")


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def configured(typing: Any, place: Any) -> tuple[Any, Any]:
    """Write there what the core was told last, by another library that thinks that it still holds."""
    return types.void(types.int64), _told("x86.sttilecfg")


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def cut(typing: Any, inputs: Any, thirds: Any, apart: Any, count: Any) -> tuple[Any, Any]:
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
def block_sums(
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
