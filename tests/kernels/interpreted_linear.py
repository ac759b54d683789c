"""Run by ``test_linear_triton`` with ``TRITON_INTERPRET=1``: the GPU kernel against the reference, without a GPU."""

from __future__ import annotations

import pytest
import torch

from kernels.linear import Packed, reference
from kernels.linear import triton as gpu
from tests.kernels.products import LAYOUTS, Product, near, product


def packed(weight: torch.Tensor) -> Packed:
    found = gpu.pack(weight)
    assert found is not None
    return found


def fits(problem: Product) -> None:
    inputs, weight, bias = problem
    layer = packed(weight)
    assert near(gpu.apply(inputs, layer, bias), reference.apply(inputs, layer, bias), problem)


def main() -> None:
    # None gets memory that reads as zeros by chance.
    torch.use_deterministic_algorithms(True)
    for rows in (1, 15, 16, 33):
        fits(product((rows,), 31, 65))
        fits(product((rows,), 32, 64, bias=True))
        fits(product((rows,), 100, 1, bias=True))
    for layout in LAYOUTS:
        fits(product((2, 3), 33, 7, layout=layout))
    fits(product((), 1, 1, bias=True))
    layer = packed(product((), 5, 7).weight)
    assert gpu.apply(torch.zeros(3, 0, 5), layer).shape == (3, 0, 7)
    refusals()
    edges()


def refusals() -> None:
    layer = packed(torch.ones(7, 5))
    assert gpu.pack(torch.full((7, 5), 1.001)) is None
    assert gpu.pack(torch.full((7, 5), torch.nan)) is None
    with pytest.raises(ValueError, match=r"a weight is \[outputs, inputs\]"):
        gpu.pack(torch.zeros(0, 5))
    with pytest.raises(TypeError, match="float64"):
        gpu.apply(torch.zeros(2, 5).double(), layer)
    with pytest.raises(ValueError, match="do not fit a layer of 5 inputs"):
        gpu.apply(torch.zeros(2, 6), layer)


def edges() -> None:
    """What is beyond an edge of the blocks is zero, whatever stands where it would be read."""
    inputs, weight, _ = product((17,), 33, 65)
    calm = gpu.apply(inputs, packed(weight))
    inputs[16], weight[64] = torch.nan, torch.inf
    assert torch.equal(gpu.apply(inputs, packed(weight))[:16, :64], calm[:16, :64])
    turned = packed(torch.full((33, 65), 2.0).T.copy_(weight))
    assert turned.data.is_contiguous()
    assert torch.equal(turned.data.float(), weight)


if __name__ == "__main__":
    main()
