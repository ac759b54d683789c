"""Against vLLM's own sort: the same tokens, but where its float32 sums cannot tell either."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels import nucleus
from tests.kernels.rows import batch

pytestmark = pytest.mark.engine

ROUNDING = 2e-6
"""Of the whole: how far from the edge float32 sums and float32 exponentials may take a token."""


def vllm_keeps(logits: Tensor, top_k: Tensor | None, top_p: Tensor | None, min_p: Tensor | None) -> Tensor:
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

    logits = logits.clone()
    if min_p is not None:
        # As MinPLogitsProcessor.apply has it.
        share = logits.softmax(dim=-1)
        logits[share < share.amax(dim=-1, keepdim=True) * min_p.unsqueeze(1)] = -torch.inf
    return apply_top_k_top_p_pytorch(logits, top_k, top_p) > -torch.inf


def near_the_edge(logits: Tensor, candidates: Tensor, top_p: Tensor) -> Tensor:
    """Tokens whose sum, taken in float64 from the least likely on, is as good as 1 - top_p."""
    ordered, order = logits.double().masked_fill(~candidates, -torch.inf).sort(dim=1, stable=True)
    sums = ordered.softmax(dim=1).cumsum(dim=1)
    near = (sums - (1 - top_p.double()).unsqueeze(1)).abs() < ROUNDING
    return torch.empty_like(near).scatter_(1, order, near)


@pytest.mark.parametrize("kind", ["peaked", "real", "flat", "sparse"])
@pytest.mark.parametrize("others", [(), ("top_k",), ("min_p",), ("top_k", "min_p")], ids="+".join)
def test_top_p_differs_only_on_the_edge(kind: str, others: tuple[str, ...]) -> None:
    logits = batch(kind, 6, 20_000, seed=1)
    top_p = torch.tensor([0.1, 0.5, 0.9, 0.95, 0.99, 0.999])
    top_k = torch.tensor([1, 20, 50, 1000, 9000, 20_000]) if "top_k" in others else None
    min_p = torch.tensor([0.3, 0.1, 0.05, 0.01, 1e-3, 0.0]) if "min_p" in others else None
    ours = nucleus.apply(logits.clone(), top_k=top_k, top_p=top_p, min_p=min_p) > -torch.inf
    theirs = vllm_keeps(logits, top_k, top_p, min_p)
    candidates = vllm_keeps(logits, top_k, None, min_p)
    differ = ours != theirs
    assert not (differ & ~near_the_edge(logits, candidates, top_p)).any()
    assert differ.sum(dim=1).max() <= 3, "a few tokens of a flat row, whose neighbours are as likely to the last bit"


@pytest.mark.parametrize("kind", ["peaked", "real", "flat", "sparse", "ties", "equal"])
def test_top_k_and_min_p_do_not_differ(kind: str) -> None:
    logits = batch(kind, 4, 20_000, seed=2)
    top_k, min_p = torch.tensor([1, 50, 700, 19_999]), torch.tensor([0.5, 0.07, 0.003, 0.0])
    for wanted in ({"top_k": top_k, "min_p": None}, {"top_k": None, "min_p": min_p}, {"top_k": top_k, "min_p": min_p}):
        ours = nucleus.apply(logits.clone(), **wanted) > -torch.inf
        assert torch.equal(ours, vllm_keeps(logits, top_p=None, **wanted))
