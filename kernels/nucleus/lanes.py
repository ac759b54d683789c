"""For numba: which of a block's logits are within bounds, all of them compared at once.

LLVM vectorises comparisons, and not a loop that keeps what some of a vector's lanes hold. Written as its vectors they
become whatever instructions the CPU has.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

BLOCK = 64
_INT_MIN = -(1 << 31)
_WORD = ir.IntType(32)
_LANES = ir.VectorType(_WORD, BLOCK)


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def between(typing: Any, part: Any, floor: Any, ceiling: Any) -> tuple[Any, Any]:
    """Of a whole block's bits, those with a key from ``floor`` up to and without ``ceiling``: a one for each."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        part, floor, ceiling = arguments

        def all_of(key: Any) -> Any:
            nothing = ir.Constant(_LANES, ir.Undefined)
            first = builder.insert_element(nothing, builder.trunc(key, _WORD), ir.Constant(_WORD, 0))
            return builder.shuffle_vector(first, nothing, ir.Constant(_LANES, [0] * BLOCK))

        array = context.make_array(signature.args[0])(context, builder, part)
        bits = builder.load(builder.bitcast(array.data, _LANES.as_pointer()), align=4)
        negative = builder.icmp_signed("<", bits, ir.Constant(_LANES, [0] * BLOCK))
        keys = builder.select(negative, builder.sub(ir.Constant(_LANES, [_INT_MIN] * BLOCK), bits), bits)
        reached = builder.icmp_signed(">=", keys, all_of(floor))
        within = builder.and_(reached, builder.icmp_signed("<", keys, all_of(ceiling)))
        return builder.bitcast(within, ir.IntType(BLOCK))

    return types.uint64(part, types.int64, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def lowest(typing: Any, ones: Any) -> tuple[Any, Any]:
    """The place of the lowest one of a number that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def ones_in(typing: Any, ones: Any) -> tuple[Any, Any]:
    """How many ones a number has."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator] # numba has no types
def whole_vectors(typing: Any) -> tuple[Any, Any]:
    """Has LLVM take all of a vector's 512 bits in the function that says so; on Intel's CPUs it prefers half of them.

    It is an attribute of LLVM's that llvmlite writes and does not list.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate
