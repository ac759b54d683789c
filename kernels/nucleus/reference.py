"""What the nucleus is, said with a sort: the definition that the kernels are tested against, bit for bit.

The order of steps and the meaning of the parameters are those of vLLM 0.32 (``v1/sample/sampler.py``,
``apply_top_k_top_p_pytorch``, ``MinPLogitsProcessor``). Sums are exact, so that every order of adding gives the same
kept set: probabilities are integers in units of 2^-44 of the most likely token's (README.md).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

UNIT_BITS = 44
"""The most likely token weighs 2^44, so that nearly 2^19 tokens add up in 63 bits."""
QUOTA_BITS = 24
"""1 - top_p in float32 is always a multiple of 2^-24."""

MOST_TOKENS = (1 << (63 - UNIT_BITS)) - 1
"""Longest row whose weights add up for certain."""

LEAST = -32.0
"""Below this distance from the largest logit a weight is zero."""
LOG2E = 1.4426950408889634
LN2_HIGH = 0.693359375
"""Nine bits of ln 2: its product with the small numbers that it meets is exact."""
LN2_LOW = -2.12194440e-4
POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
"""(exp(r) - 1 - r) / r^2 for |r| <= ln(2)/2, highest power first (Cephes, ``expf``)."""
MANTISSA_BITS = 24


class Limits(NamedTuple):
    """The parameters of each row, shape [rows], as the kernels use them. A row with nothing on has all three off."""

    count: Tensor
    """int64: how many largest logits are kept, and what equals the last of them; 0 is off."""
    gap: Tensor
    """float32, <= 0: kept is what is at least the largest logit plus this; -inf is off."""
    quota: Tensor
    """int64: the share of the weight that may be dropped, in units of 2^-24; 0 is off."""


def limits(logits: Tensor, top_k: Tensor | None, top_p: Tensor | None, min_p: Tensor | None) -> Limits:
    """Parameters as users know them, brought into the form that kernels use. Out of range is taken to the nearest.

    ``top_k`` < 1 or >= the row's length, ``top_p`` >= 1 and ``min_p`` <= 0 are off, and so is NaN. Raises
    ``ValueError`` where a shape is not [rows] or rows are longer than the sums can hold.
    """
    check(logits, top_k, top_p, min_p)
    rows, size = logits.shape
    device = logits.device
    count = torch.zeros(rows, dtype=torch.int64, device=device)
    least = torch.full((rows,), -torch.inf, device=device)
    quota = torch.zeros(rows, dtype=torch.int64, device=device)
    if top_k is not None:
        count = top_k.to(device, torch.int64)
        count = torch.where((count < 1) | (count >= size), 0, count)
    if top_p is not None:
        share = torch.nan_to_num(top_p.to(device, torch.float32), nan=1.0).clamp(0.0, 1.0)
        quota = ((1 - share) * (1 << QUOTA_BITS)).to(torch.int64)
    if min_p is not None:
        least = gap(min_p.to(device))
    return Limits(count, least, quota)


def check(logits: Tensor, top_k: Tensor | None, top_p: Tensor | None, min_p: Tensor | None) -> None:
    """Raises ``ValueError`` as :func:`limits` does."""
    rows, size = logits.shape
    if size > MOST_TOKENS:
        raise ValueError(f"rows of {size} logits, and exact sums hold {MOST_TOKENS}")
    for name, given in (("top_k", top_k), ("top_p", top_p), ("min_p", min_p)):
        if given is not None and given.shape != (rows,):
            raise ValueError(f"{name} has shape {tuple(given.shape)} for {rows} rows")


def gap(min_p: Tensor) -> Tensor:
    """How far below the largest logit min-p reaches: float32 [rows]. In float64 its logarithm is the same anywhere."""
    share = torch.nan_to_num(min_p.to(torch.float32), nan=0.0).clamp(0.0, 1.0)
    return share.to(torch.float64).log().to(torch.float32)


def weights(distance: Tensor) -> Tensor:
    """exp(distance) in units of 2^-44, rounded down, as int64; ``distance`` is float32, at most 0, and may be -inf.

    Every operation rounds by itself, in this order, and none may be contracted to a fused multiply-add.
    """
    distance = distance.clamp(min=LEAST)
    halvings = (0.5 - distance * LOG2E).to(torch.int32)
    steps = halvings.to(torch.float32)
    rest = (distance + steps * LN2_HIGH) + steps * LN2_LOW
    power = torch.full_like(rest, POLYNOMIAL[0])
    for coefficient in POLYNOMIAL[1:]:
        power = power * rest + coefficient
    power = (power * (rest * rest) + rest) + 1.0
    mantissa = (power * (1 << MANTISSA_BITS)).to(torch.int64)
    return (mantissa << (UNIT_BITS - MANTISSA_BITS)) >> halvings.to(torch.int64)


def apply(
    logits: Tensor, *, top_k: Tensor | None = None, top_p: Tensor | None = None, min_p: Tensor | None = None
) -> Tensor:
    """As :func:`kernels.nucleus.apply`, on any device, by sorting every row."""
    found = limits(logits, top_k, top_p, min_p)
    for row, count, gap, quota in zip(logits, *(part.tolist() for part in found), strict=True):
        if _is_sampled(row):
            row[~_kept(row, count, gap, quota)] = -torch.inf
    return logits


def _is_sampled(row: Tensor) -> bool:
    """A row with a NaN or +inf is a fault of the model, which is not for a sampler to hide; one of -inf has nothing."""
    return bool((row < torch.inf).all()) and bool((row > -torch.inf).any())


def _kept(row: Tensor, count: int, gap: float, quota: int) -> Tensor:
    # Adding zero makes -0.0 and 0.0 one value to every sort.
    ordered, order = (row + 0.0).sort(stable=True)
    top = ordered[-1]
    kept = ordered >= top + torch.tensor(gap, device=row.device)
    if count:
        kept &= ordered >= ordered[-count]
    if quota:
        mass = torch.where(kept, weights(ordered - top), 0).cumsum(0)
        total = int(mass[-1])
        kept &= mass > (total * quota >> QUOTA_BITS)
        kept[-1] = True
    return torch.empty_like(kept).scatter_(0, order, kept)


def draw(
    logits: Tensor,
    temperatures: Tensor,
    seeds: Tensor,
    *,
    top_k: Tensor | None = None,
    top_p: Tensor | None = None,
    min_p: Tensor | None = None,
) -> Tensor:
    """A token of each row, int64 [rows]: divided by its temperature, cut as :func:`apply` does, and drawn by noise.

    The noise is that of vLLM 0.32 on CPUs (``fused_gumbel_argmax``): SplitMix64 of the row's seed and the token's
    place, as Gumbel's distribution has it. The largest sum of a logit and its noise is a draw from the softmax. A row
    of -inf gives token 0. One token at a time, in Python: for tests.
    """
    cut = apply(logits / temperatures[:, None], top_k=top_k, top_p=top_p, min_p=min_p)
    return torch.tensor([_drawn(row, seed) for row, seed in zip(cut.tolist(), seeds.tolist(), strict=True)])


def _drawn(row: list[float], seed: int) -> int:
    state = _mixed(seed & _ALL)
    chosen, best, noise = 0, 0.0, -math.inf
    for place, logit in enumerate(row):
        if logit == -math.inf:
            continue
        bits = _mixed((state + (place + 1) * 0x9E3779B97F4A7C15) & _ALL) >> 11
        own = -math.log(-math.log((bits + 0.5) * 2.0**-53))
        # Differences are compared: noise that is added to a logit of 1e38 is lost.
        if noise == -math.inf or (logit - best) + own > noise:
            chosen, best, noise = place, logit, own
    return chosen


_ALL = (1 << 64) - 1


def _mixed(state: int) -> int:
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _ALL
    return state ^ (state >> 31)
