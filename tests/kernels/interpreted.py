"""Run by ``test_nucleus_triton`` with ``TRITON_INTERPRET=1``: the GPU kernel against the reference, without a GPU."""

from __future__ import annotations

import torch

from kernels.nucleus import reference
from kernels.nucleus import triton as gpu
from tests.kernels.rows import KINDS, batch, same

ROWS = {
    "top_k": torch.tensor([0, 7, 0, 40, -1]),
    "top_p": torch.tensor([0.8, 0.9, 1.0, 0.5, 1.0]),
    "min_p": torch.tensor([0.0, 0.0, 0.1, 0.001, 0.0]),
}


def main() -> None:
    # Several blocks a part and parts a row, and a last one of each that is not full. With room for a few tokens only,
    # rows are bisected whole.
    gpu.BLOCK, gpu.LEAST_PART, gpu.BOUNDED = 16, 12, 4
    for gpu.CANDIDATES, gpu.FEW in ((64, 64), (64, 8), (4, 2)):
        for kind in KINDS:
            logits = batch(kind, 5, 40)
            assert same(gpu.apply(logits.clone(), **ROWS), reference.apply(logits.clone(), **ROWS)), kind
            for name in ROWS:
                only = {name: ROWS[name]}
                assert same(gpu.apply(logits.clone(), **only), reference.apply(logits.clone(), **only)), (kind, name)
    faults = batch("real", 5, 40)
    faults[0, 3], faults[1, 4], faults[2, 5], faults[3] = torch.nan, torch.inf, -torch.nan, -torch.inf
    assert same(gpu.apply(faults.clone(), **ROWS), reference.apply(faults.clone(), **ROWS))
    apart = torch.full((40, 9), 3.0).T[::2]
    apart.copy_(batch("ties", 5, 40))
    expected = reference.apply(apart.clone(), **ROWS)
    assert same(gpu.apply(apart, **ROWS).contiguous(), expected.contiguous()), "columns and rows apart"
    odd = {**ROWS, "top_p": torch.tensor([torch.nan, -1.0, 2.0, 0.0, 2.0**-24])}
    assert same(gpu.apply(logits.clone(), **odd), reference.apply(logits.clone(), **odd))
    assert gpu.apply(torch.zeros(0, 9)).shape == (0, 9)


if __name__ == "__main__":
    main()
