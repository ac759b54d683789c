"""The nucleus on CPUs: rows are shared among threads, and each is :mod:`kernels.nucleus.rows`' work."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kernels.nucleus import reference, rows
from kernels.nucleus.lanes import BLOCK
from kernels.nucleus.rows import Batch, Scratch
from kernels.nucleus.sweeps import BINS, Floats, Longs
from kernels.threads import Launching, threads, warn_of_few

LEAST_TEMPERATURE = 1e-5
"""A row with less is not drawn for: its token is the likeliest, and who asks has it."""

_NONE = np.empty(0, np.int64)
_held = threading.local()


class Limits(NamedTuple):
    """:class:`kernels.nucleus.reference.Limits`, read once for as long as a batch stays the same."""

    counts: Longs
    gaps: Floats
    quotas: Longs


def apply(
    logits: Tensor, *, top_k: Tensor | None = None, top_p: Tensor | None = None, min_p: Tensor | None = None
) -> Tensor:
    """As :func:`kernels.nucleus.apply`, on CPU tensors. Rows with nothing on cost nothing."""
    return apply_limits(logits, limits(logits, top_k=top_k, top_p=top_p, min_p=min_p))


def limits(
    logits: Tensor, *, top_k: Tensor | None = None, top_p: Tensor | None = None, min_p: Tensor | None = None
) -> Limits:
    """The parameters as :func:`apply_limits` takes them, for logits of this shape. Raises as :func:`apply` does."""
    # Copied, so that they stay what they are whatever is written into the tensors.
    return Limits(*(part.numpy().copy() for part in reference.limits(logits, top_k, top_p, min_p)))


def together(parts: Sequence[Limits]) -> Limits:
    """The limits of one batch of all their rows, in this order."""
    return Limits(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def apply_limits(logits: Tensor, limits: Limits) -> Tensor:
    """As :func:`apply`, for who brings the same parameters many times."""
    _check(logits, limits)
    chosen = np.flatnonzero((limits.counts > 0) | (limits.gaps > -np.inf) | (limits.quotas > 0))
    if not len(chosen) or not logits.shape[1]:
        return logits
    if logits.stride(1) != 1:
        return logits.copy_(apply_limits(logits.contiguous(), limits))
    _share(_batch(logits, limits, np.ones(len(logits), np.float32)), chosen, _NONE, _NONE)
    return logits


def draw(logits: Tensor, temperatures: Tensor, limits: Limits, seeds: Tensor) -> Tensor:
    """A token of each row, int64 [rows]: as :func:`kernels.nucleus.reference.draw`, and the same one.

    ``logits``: float32 [rows, vocabulary], before the temperature; used up, a row may be divided by it or not.
    ``temperatures``: float32 [rows]; a row of less than ``LEAST_TEMPERATURE`` is not looked at, and gets token 0.
    ``seeds``: int64 [rows]; with the same seed, logits and limits the same token is drawn, on any number of threads.
    Raises ``ValueError`` for shapes and ``TypeError`` for types that do not fit.
    """
    _check(logits, limits)
    if temperatures.dtype != torch.float32 or seeds.dtype != torch.int64:
        raise TypeError(f"temperatures are {temperatures.dtype} and seeds {seeds.dtype}, not float32 and int64")
    if temperatures.shape != seeds.shape or seeds.shape != logits.shape[:1] or not logits.shape[1]:
        raise ValueError(
            f"{tuple(temperatures.shape)} temperatures and {tuple(seeds.shape)} seeds for {tuple(logits.shape)} logits"
        )
    batch = _batch(logits if logits.stride(1) == 1 else logits.contiguous(), limits, temperatures.numpy())
    tokens = np.zeros(len(logits), np.int64)
    chosen = np.flatnonzero(batch.temperatures >= LEAST_TEMPERATURE)
    if len(chosen):
        _share(batch, chosen, np.ascontiguousarray(seeds.numpy()), tokens)
    return torch.from_numpy(tokens)


def _share(batch: Batch, chosen: Longs, seeds: Longs, tokens: Longs) -> None:
    """Among the threads, each of which takes some of the rows that are ``chosen``."""
    shares = threads(len(chosen))
    scratch = _scratch(shares, batch.size)
    if shares == 1:
        rows.one_after_another(batch, chosen, scratch, seeds, tokens)
    else:
        with Launching(shares):
            rows.in_parallel(batch, chosen, scratch, seeds, tokens)


def _check(logits: Tensor, limits: Limits) -> None:
    if logits.dtype != torch.float32:
        raise TypeError(f"logits are {logits.dtype}, not float32")
    if len(limits.counts) != len(logits):
        raise ValueError(f"limits of {len(limits.counts)} rows for {len(logits)}")


def _batch(logits: Tensor, limits: Limits, temperatures: Floats) -> Batch:
    (height, size), stride = logits.shape, logits.stride(0)
    flat = logits.as_strided(((height - 1) * stride + size if height else 0,), (1,)).numpy()
    return Batch(flat, flat.view(np.int32), stride, size, *limits, np.ascontiguousarray(temperatures))


def _scratch(threads: int, size: int) -> Scratch:
    """Kept from call to call by whoever calls: fresh pages would cost more than the work."""
    held: Scratch | None = getattr(_held, "scratch", None)
    if held is None or len(held.keys) < threads or held.keys.shape[1] != size + 1:
        held = _held.scratch = Scratch(
            np.empty((threads, -(-size // BLOCK)), np.int32),
            np.empty((threads, size + 1), np.int32),
            np.empty((threads, size + 1), np.int64),
            np.empty((threads, BINS), np.int64),
        )
    return held


def warm() -> None:
    """Compile everything, or load it from numba's cache, and start the threads. Takes seconds the first time."""
    warn_of_few()
    for height in (1, 2):
        logits = torch.zeros(height, 2 * BLOCK)
        on = limits(
            logits,
            top_k=torch.full((height,), 2),
            top_p=torch.full((height,), 0.5),
            min_p=torch.full((height,), 0.1),
        )
        apply_limits(logits.clone(), on)
        draw(logits, torch.ones(height), on, torch.zeros(height, dtype=torch.int64))
