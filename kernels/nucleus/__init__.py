"""The nucleus of next-token distributions: top-k, top-p and min-p without a sort. README.md has the maths."""

from __future__ import annotations

from torch import Tensor

from kernels.dispatch import implementation


def apply(
    logits: Tensor, *, top_k: Tensor | None = None, top_p: Tensor | None = None, min_p: Tensor | None = None
) -> Tensor:
    """Set to -inf, in place, what the parameters of each row drop; return ``logits``.

    ``logits``: float32 [rows, vocabulary], temperature applied; any stride between rows, and less than 2^19 columns.
    Parameters: one a row, shape [rows], or ``None``; ``top_k`` < 1 or >= vocabulary, ``top_p`` >= 1 and
    ``min_p`` <= 0 are off. In this order: what is less likely than ``min_p`` times the likeliest goes; then what is
    below the ``top_k``-th largest (its equals stay); then, from the least likely on, as much as adds up to at most
    1 - ``top_p`` of what was left, among equals the lower index first. The likeliest token always stays.

    A row with a NaN or +inf stays as it is, and so does one of -inf only. The kept set is the same on every device,
    and that of :func:`kernels.nucleus.reference.apply`. Raises ``ValueError`` for shapes and ``TypeError`` for types
    that do not fit.
    """
    done: Tensor = implementation("nucleus", logits.device.type).apply(logits, top_k=top_k, top_p=top_p, min_p=min_p)
    return done
