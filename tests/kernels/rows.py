"""Batches of logits of every kind that a sampler may meet, and parameters for them."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

KINDS = ("peaked", "real", "flat", "ties", "equal", "sparse", "tiny", "huge", "zeros")


def batch(kind: str, rows: int, size: int, seed: int = 0) -> Tensor:
    """Logits [rows, size], float32."""
    drawn = torch.Generator().manual_seed(seed)
    normal = torch.randn(rows, size, generator=drawn)
    if kind == "peaked":
        return (normal * 2).index_fill_(1, torch.tensor([size // 2]), 30.0)
    if kind == "real":
        # A few candidates well above a wide field, as language models have them.
        normal = normal * 2.2 - 2
        near = torch.randint(0, size, (rows, min(40, size)), generator=drawn)
        return normal.scatter_(1, near, torch.linspace(14, 6, near.shape[1]).expand(rows, -1).contiguous())
    if kind == "ties":
        return (normal * 2).round() / 2
    if kind == "equal":
        return torch.full((rows, size), 1.25)
    if kind == "sparse":
        return normal.masked_fill_(torch.rand(rows, size, generator=drawn) < 0.9, -torch.inf)
    if kind == "tiny":
        return normal * 1e-38
    if kind == "huge":
        return normal * 1e37
    if kind == "zeros":
        return torch.where(normal > 0, 0.0, -0.0)
    return normal


@st.composite
def problems(draw: st.DrawFn, most: int = 700) -> tuple[Tensor, dict[str, Any]]:
    """Logits and what to drop of them; each parameter absent, off, or anything that a request may say."""
    rows, size = draw(st.integers(1, 4)), draw(st.integers(1, most))
    logits = batch(draw(st.sampled_from(KINDS)), rows, size, draw(st.integers(0, 2**32)))
    wanted: dict[str, Any] = {}
    for name, values, dtype in (
        ("top_k", st.integers(-1, size + 2), torch.int64),
        ("top_p", st.floats(0, 1, width=32), torch.float32),
        ("min_p", st.sampled_from((0.0, 1e-9, 0.01, 0.1, 0.5, 1.0)) | st.floats(0, 1, width=32), torch.float32),
    ):
        if draw(st.booleans()):
            wanted[name] = torch.tensor(draw(st.lists(values, min_size=rows, max_size=rows)), dtype=dtype)
    return logits, wanted


def same(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, which NaN and the sign of zero need."""
    return bool(torch.equal(one.view(torch.int32), other.view(torch.int32)))


def full(rows: int, **limits: float) -> dict[str, Tensor]:
    """The same parameters for every row."""
    return {
        name: torch.full((rows,), value, dtype=torch.int64 if name == "top_k" else torch.float32)
        for name, value in limits.items()
    }
