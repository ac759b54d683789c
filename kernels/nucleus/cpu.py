"""The nucleus on CPUs: rows are shared among threads, and each is :mod:`kernels.nucleus.rows`' work."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kernels.nucleus import batches, reference
from kernels.nucleus.batches import Batch
from kernels.nucleus.lanes import BLOCK
from kernels.nucleus.sweeps import Floats, Longs
from kernels.threads import Launching, threads, warn_of_few

_held = threading.local()
_NONE = (0, 0, torch.empty(0))


class Limits:
    """:class:`kernels.nucleus.reference.Limits`, read once for as long as a batch stays the same."""

    __slots__ = ("any", "at", "columns", "height")

    def __init__(self, counts: Longs, gaps: Floats, quotas: Longs) -> None:
        self.columns, self.height = (counts, gaps, quotas), len(counts)
        self.any = bool(((counts > 0) | (gaps > -np.inf) | (quotas > 0)).any())
        self.at: tuple[int, int, int] = (counts.ctypes.data, gaps.ctypes.data, quotas.ctypes.data)


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
    return Limits(*(np.concatenate(columns) for columns in zip(*(part.columns for part in parts), strict=True)))


def apply_limits(logits: Tensor, limits: Limits) -> Tensor:
    """As :func:`apply`, for who brings the same parameters many times."""
    height, size = _check(logits, limits)
    if not limits.any or not size:
        return logits
    stride, step = logits.stride()
    if step != 1:
        return logits.copy_(apply_limits(logits.contiguous(), limits))
    _share(Batch(logits.data_ptr(), stride, height, size, *limits.at, 0, 0, 0))
    return logits


def draw(logits: Tensor, temperatures: Tensor, limits: Limits, seeds: Tensor) -> Tensor:
    """A token of each row, int64 [rows]: as :func:`kernels.nucleus.reference.draw`, and the same one.

    ``logits``: float32 [rows, vocabulary], before the temperature; used up, a row may be divided by it or not.
    ``temperatures``: float32 [rows]; a row of less than ``LEAST_TEMPERATURE`` is not looked at, and gets token 0.
    ``seeds``: int64 [rows]; with the same seed, logits and limits the same token is drawn, on any number of threads.
    Raises ``ValueError`` for shapes and ``TypeError`` for types that do not fit.
    """
    height, size = _check(logits, limits)
    if temperatures.dtype != torch.float32 or seeds.dtype != torch.int64:
        raise TypeError(f"temperatures are {temperatures.dtype} and seeds {seeds.dtype}, not float32 and int64")
    if temperatures.shape != seeds.shape or seeds.shape != (height,) or not size:
        raise ValueError(
            f"{tuple(temperatures.shape)} temperatures and {tuple(seeds.shape)} seeds for {(height, size)} logits"
        )
    # Named, so that they are there for as long as their addresses are.
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    temperatures, seeds = temperatures.contiguous(), seeds.contiguous()
    tokens = torch.zeros(height, dtype=torch.int64)
    asked = temperatures.data_ptr(), seeds.data_ptr(), tokens.data_ptr()
    _share(Batch(logits.data_ptr(), logits.stride(0), height, size, *limits.at, *asked))
    return tokens


def _share(batch: Batch) -> None:
    """Among the threads, each of which takes some of the rows."""
    shares = threads(batch.height)
    scratch = _scratch(shares, batch.size).data_ptr()
    if shares == 1:
        batches.one_after_another(batch, scratch)
    else:
        with Launching(shares):
            batches.in_parallel(batch, scratch)


def _check(logits: Tensor, limits: Limits) -> tuple[int, int]:
    """The shape of the logits. Raises where they do not fit."""
    if logits.dtype != torch.float32:
        raise TypeError(f"logits are {logits.dtype}, not float32")
    height, size = logits.shape
    if height != limits.height:
        raise ValueError(f"limits of {limits.height} rows for {height}")
    return height, size


def _scratch(threads: int, size: int) -> Tensor:
    """Kept from call to call by whoever calls: fresh pages would cost more than the work."""
    held: tuple[int, int, Tensor] = getattr(_held, "scratch", _NONE)
    if held[0] < threads or held[1] != size:
        held = _held.scratch = threads, size, torch.empty(threads * batches.room(size), dtype=torch.uint8)
    return held[2]


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
