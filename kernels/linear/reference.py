"""What a packed linear layer is: an exact product, rounded once. And which weights may be packed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Packed:
    """A weight of bfloat16 numbers, in the order in which a device's kernel reads them."""

    data: Tensor
    """Laid out as the kernel that packed it wants it."""
    outputs: int
    inputs: int


def narrowed(weight: Tensor) -> Tensor | None:
    """The weight in bfloat16; ``None`` where a number of it is none of bfloat16's, NaN included.

    Raises ``ValueError`` for a shape that is not [outputs, inputs] with both above 0.
    """
    if weight.dim() != 2 or not weight.numel():
        raise ValueError(f"a weight is [outputs, inputs], not {tuple(weight.shape)}")
    narrow = weight.to(torch.bfloat16)
    return narrow if torch.equal(narrow.to(weight.dtype), weight) else None


def check(inputs: Tensor, packed: Packed) -> None:
    """Raises as :func:`kernels.linear.apply` does."""
    if inputs.dtype != torch.float32:
        raise TypeError(f"inputs are {inputs.dtype}, not float32")
    if inputs.device != packed.data.device:
        raise ValueError(f"inputs are on {inputs.device}, the layer is on {packed.data.device}")
    if not inputs.dim() or inputs.shape[-1] != packed.inputs:
        raise ValueError(f"inputs {tuple(inputs.shape)} do not fit a layer of {packed.inputs} inputs")


def pack(weight: Tensor) -> Packed | None:
    narrow = narrowed(weight)
    return None if narrow is None else Packed(narrow, *weight.shape)


def apply(inputs: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    check(inputs, packed)
    sums = inputs.double() @ packed.data.double().T
    if bias is not None:
        sums = sums + bias.double()
    return sums.float()
