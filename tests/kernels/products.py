"""Linear layers of every shape and layout, and how far float32 may take a sum from the true one."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

UNIT = 2.0**-24
"""Half the distance from 1 to the next float32: what one rounding moves a number by, relatively."""
LEAST = 2.0**-150
"""The same below the normal numbers, absolutely."""
LAYOUTS = ("contiguous", "columns first", "columns apart", "rows apart", "one row for all")


class Product(NamedTuple):
    inputs: Tensor
    weight: Tensor
    """Float32, each number one of bfloat16's."""
    bias: Tensor | None


def product(
    leading: tuple[int, ...],
    inputs: int,
    outputs: int,
    *,
    layout: str = "contiguous",
    bias: bool = False,
    seed: int = 0,
) -> Product:
    """Of normal numbers; ``inputs`` [*leading, inputs] in memory as ``layout`` says."""
    drawn = torch.Generator().manual_seed(seed)
    lines = laid(torch.randn(*leading, inputs, generator=drawn), layout)
    weight = torch.randn(outputs, inputs, generator=drawn).bfloat16().float()
    return Product(lines, weight, torch.randn(outputs, generator=drawn) if bias else None)


def laid(lines: Tensor, layout: str) -> Tensor:
    """The same numbers elsewhere, with NaN around them; the first row's only, for "one row for all"."""
    *leading, inputs = lines.shape
    if layout == "columns first":
        return lines.movedim(-1, 0).contiguous().movedim(0, -1)
    if layout == "columns apart":
        return lines.new_full((*leading, 2 * inputs), torch.nan)[..., ::2].copy_(lines)
    if layout == "rows apart":
        return lines.new_full((*leading, inputs + 3), torch.nan)[..., 1 : inputs + 1].copy_(lines)
    if layout == "one row for all" and prod(leading):
        return lines.reshape(-1, inputs)[0].expand(lines.shape)
    return lines


@st.composite
def products(draw: st.DrawFn) -> Product:
    """Up to 40 rows, none included, of 1 to 100 inputs and 1 to 200 outputs."""
    leading = draw(
        st.just(())
        | st.tuples(st.integers(0, 40))
        | st.tuples(st.integers(0, 5), st.integers(0, 8))
        | st.tuples(st.integers(1, 2), st.integers(0, 3), st.integers(1, 6))
    )
    return product(
        leading,
        draw(st.integers(1, 100)),
        draw(st.integers(1, 200)),
        layout=draw(st.sampled_from(LAYOUTS)),
        bias=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32)),
    )


def bound(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """How far apart two results may be, one a float32 chain in any order, the other the float64 sum rounded to float32.

    Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, 3.1: n roundings take a sum at most
    gamma_n = n u / (1 - n u) of the sum of its magnitudes away. A chain has one for every input, or two where it does
    not fuse, and one for the bias; the reference has one, and one is more than float64's all together.
    """
    roundings = 2 * weight.shape[1] + 3
    gamma = roundings * UNIT / (1 - roundings * UNIT)
    magnitudes = inputs.double().abs() @ weight.double().abs().T
    if bias is not None:
        magnitudes = magnitudes + bias.double().abs()
    return gamma * magnitudes + roundings * LEAST


def near(one: Tensor, other: Tensor, problem: Product) -> bool:
    """Of the same shape, and no further apart than rounding explains."""
    return one.shape == other.shape and bool(((one.double() - other.double()).abs() <= bound(*problem)).all())


def in_order(inputs: Tensor, weight: Tensor) -> Tensor:
    """What the CPU kernel says it computes: for each input one fused product and sum, rounded once.

    Exact where float64 holds each product and sum, which it does for multiples of 2^-20 below 8 and weights that are
    multiples of 1/16 below 16: then only the rounding to float32 is one.
    """
    sums = torch.zeros(*inputs.shape[:-1], len(weight))
    for line, column in zip(inputs.double().unbind(-1), weight.double().unbind(-1), strict=True):
        sums = (sums.double() + line.unsqueeze(-1) * column).float()
    return sums


def coarse(rows: int, inputs: int, outputs: int, seed: int = 0) -> Product:
    """Numbers for :func:`in_order`."""
    drawn = torch.Generator().manual_seed(seed)
    lines = (torch.randn(rows, inputs, generator=drawn) * 2**20).round() / 2**20
    weight = (torch.randn(outputs, inputs, generator=drawn) * 16).round() / 16
    return Product(lines, weight, None)
