"""Linear layers whose weights are kept in bfloat16 and computed with in float32. README.md has the maths.

A checkpoint in bfloat16 loses nothing by it: every weight is widened to the float32 that it would have been stored as.
A step of few tokens on a CPU takes as long as reading the weights takes, and they are half as long.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

from torch import Tensor

from kernels.dispatch import implementation
from kernels.linear.reference import Packed

__all__ = ["Packed", "apply", "kernel", "pack"]


@cache
def kernel(device: str) -> ModuleType:
    """The module that packs and computes on a device of a type (``torch.device.type``): on CPUs, AMX's where it is."""
    if device == "cpu":
        amx = import_module("kernels.linear.amx")
        if amx.usable():
            return amx
    return implementation("linear", device)


def pack(weight: Tensor) -> Packed | None:
    """A layer's weight as its device's kernel reads it; ``None`` where bfloat16 cannot hold each of its numbers.

    ``weight``: floating point [outputs, inputs], neither of them 0. Raises ``ValueError`` for another shape.
    """
    packed: Packed | None = kernel(weight.device.type).pack(weight)
    return packed


def apply(inputs: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    """``inputs @ weight.T + bias``: float32 [..., inputs] to a new float32 [..., outputs] on the same device.

    Products and sums are float32's, one after the other along the inputs, so that a row's result is the same bits
    whatever else is in the batch. NaN and infinities go where IEEE 754 says. Raises ``TypeError`` for inputs that are
    not float32 and ``ValueError`` for a width that is not the weight's.
    """
    done: Tensor = kernel(inputs.device.type).apply(inputs, packed, bias)
    return done
