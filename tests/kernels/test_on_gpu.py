"""The GPU kernels on a GPU, at the sizes that models have. Without one they are interpreted, in small, next door."""

from __future__ import annotations

import pytest
import torch

from kernels import linear, nucleus
from kernels.linear import Packed
from kernels.linear import reference as linear_reference
from kernels.nucleus import reference
from tests.kernels.products import LAYOUTS, laid, near, product
from tests.kernels.rows import KINDS, batch, full, same

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here"),
    pytest.mark.timeout(600),
]

LIMITS: dict[str, dict[str, float]] = {
    "nothing": {},
    "top_p": {"top_p": 0.9},
    "top_k": {"top_k": 50},
    "top_k and top_p": {"top_k": 50, "top_p": 0.95},
    "min_p": {"min_p": 0.05},
    "all": {"top_k": 1000, "top_p": 0.99, "min_p": 1e-6},
    "one": {"top_k": 1},
    "none of the weight": {"top_p": 0.0},
}


@pytest.mark.parametrize("size", [1, 31, 4097, 49_152, 151_936, reference.MOST_TOKENS])
@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_what_the_reference_keeps(kind: str, size: int) -> None:
    logits = batch(kind, 4, size)
    for name, wanted in LIMITS.items():
        limits = full(4, **wanted)
        expected = reference.apply(logits.clone(), **limits)
        found = nucleus.apply(logits.cuda(), **{each: given.cuda() for each, given in limits.items()})
        assert same(found.cpu(), expected), name


def test_rows_that_ask_for_different_things() -> None:
    rows = torch.arange(64)
    limits = {
        "top_k": torch.where(rows % 4 == 1, rows, 0),
        "top_p": torch.where(rows % 4 == 2, rows / 64, 1.0),
        "min_p": torch.where(rows % 4 == 3, rows / 640, 0.0),
    }
    logits = batch("real", 64, 49_152)
    expected = reference.apply(logits.clone(), **limits)
    assert same(nucleus.apply(logits.cuda(), **{name: each.cuda() for name, each in limits.items()}).cpu(), expected)


def test_faults_stay_and_so_do_strides() -> None:
    logits = batch("real", 6, 49_152)
    logits[0, 7], logits[1, 4000], logits[2, 49_151], logits[3] = torch.nan, torch.inf, -torch.nan, -torch.inf
    limits = full(6, top_k=40, top_p=0.9)
    expected = reference.apply(logits.clone(), **limits)
    on_gpu = {name: each.cuda() for name, each in limits.items()}
    apart = torch.full((49_152, 12), 3.0, device="cuda").T[::2]
    assert same(nucleus.apply(apart.copy_(logits), **on_gpu).cpu(), expected)
    wide = torch.full((6, 50_000), 3.0, device="cuda")
    assert same(nucleus.apply(wide[:, 5:49_157].copy_(logits), **on_gpu).cpu(), expected)
    assert bool((wide[:, :5] == 3).all())
    assert bool((wide[:, 49_157:] == 3).all())


def test_the_same_again_and_in_a_graph() -> None:
    """Sums in any order are the same sums, so no run differs; and a captured graph computes on new logits."""
    limits = {name: each.cuda() for name, each in full(16, top_k=4000, top_p=0.9).items()}
    logits = batch("flat", 16, 151_936)
    expected = reference.apply(logits.clone(), **full(16, top_k=4000, top_p=0.9))
    work = torch.zeros_like(logits, device="cuda")
    nucleus.apply(work, **limits)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        nucleus.apply(work, **limits)
    for _ in range(20):
        work.copy_(logits)
        graph.replay()
        assert same(work.cpu(), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows", [1, 15, 16, 33, 512])
def test_a_packed_layer_computes_what_the_reference_does(rows: int, layout: str) -> None:
    inputs, weight, bias = asked = product((rows,), 576, 1536, layout=layout, bias=True)
    there = linear.pack(weight.cuda())
    assert there is not None
    assert bias is not None
    expected = linear_reference.apply(inputs, Packed(weight.bfloat16(), *weight.shape), bias)
    found = linear.apply(laid(inputs.cuda(), layout), there, bias.cuda())
    assert near(found.cpu(), expected, asked)


def test_a_row_is_the_same_bits_in_any_batch() -> None:
    inputs, weight, _ = product((70,), 576, 1000)
    layer = linear.pack(weight.cuda())
    assert layer is not None
    whole = linear.apply(inputs.cuda(), layer).cpu()
    for rows in (1, 2, 15, 16, 17, 32, 69):
        assert same(linear.apply(inputs[:rows].cuda(), layer).cpu(), whole[:rows])
