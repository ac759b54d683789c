"""The weights are what they say, and the same number in whatever computes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.nucleus import cpu, reference, sweeps
from kernels.nucleus.weights import key_of_float, needed

UNIT = float(1 << reference.UNIT_BITS)


def distances() -> torch.Tensor:
    """Every place where the exponent's step changes, densely; all magnitudes; a million more."""
    steps = -(np.arange(48, dtype=np.float64) + 0.5) * np.log(2)
    near = (steps[:, None] + np.linspace(-2e-5, 2e-5, 2001)).ravel()
    scales = -np.logspace(-45, 2, 20_000)
    spread = -np.random.default_rng(0).random(1_000_000) * 40
    found = np.concatenate([near, scales, spread, [0.0, -0.0, -np.inf]]).astype(np.float32)
    return torch.from_numpy(np.minimum(found, 0))


def test_a_weight_is_an_exponential_in_float32_rounded_down() -> None:
    points = distances()
    true = points.double().exp() * UNIT
    error = (reference.weights(points).double() - true).abs()
    assert bool((error <= true * 1.2e-7 + 1).all())
    assert reference.weights(torch.tensor([0.0, -33.0, -torch.inf])).tolist() == [1 << reference.UNIT_BITS, 0, 0]


def test_compiled_and_reference_weigh_alike() -> None:
    points = distances()
    for top in (0.0, 17.25):
        logits = points + top
        bits = logits.numpy().view(np.int32)
        keys = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF)).astype(np.int32)
        found = np.full(len(keys), -1, np.int64)
        total = sweeps.weigh(keys, len(keys), np.float32(top), found)
        expected = reference.weights(logits - top)
        assert np.array_equal(found, expected.numpy())
        assert total == int(expected.sum())


@pytest.mark.parametrize("size", [1, 63, 1024, 1025, 49_152])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 5.0])
def test_sums_that_are_nearly_right_are_as_wrong_as_they_say_at_most(size: int, scale: float) -> None:
    logits = torch.randn(size, generator=torch.Generator().manual_seed(size)) * scale
    logits[::3] = logits[0]
    top, floor = float(logits.max()), float(logits.quantile(0.1))
    exact = torch.where(logits >= floor, reference.weights(logits - top), 0)
    edges = logits.quantile(torch.tensor([0.9, 0.5, 0.2]))
    key = np.int32(key_of_float(np.float32(floor)))
    total, below = sweeps.closely(logits.numpy(), key, edges.numpy(), np.float32(top))
    for found, wanted in zip((total, *below), (exact, *(exact[logits < edge] for edge in edges)), strict=True):
        assert abs(found - int(wanted.sum())) <= found * sweeps.CLOSELY + size


@given(st.integers(1, reference.MOST_TOKENS << reference.UNIT_BITS), st.integers(1, 1 << reference.QUOTA_BITS))
def test_the_budget_is_exact_though_its_product_takes_more_than_64_bits(total: int, quota: int) -> None:
    kept = int(needed(np.int64(total), np.int64(quota)))
    assert kept == max(total - (total * quota >> reference.QUOTA_BITS), 1)


def test_the_longest_row_adds_up_in_63_bits() -> None:
    assert reference.MOST_TOKENS * (1 << reference.UNIT_BITS) < 1 << 63
    logits = torch.zeros(1, reference.MOST_TOKENS)
    done = cpu.apply(logits, top_p=torch.tensor([0.25]))
    assert int((done == 0).sum()) == -(-reference.MOST_TOKENS // 4)
