"""Top-k, top-p and min-p inside vLLM's engine without its sort: a V1 logits processor over :mod:`kernels.nucleus`.

vLLM sorts the whole vocabulary of a batch in which anybody has top-p on. The front of the engine moves these
parameters out of a request's own fields to where only this processor looks, so that vLLM finds nothing to sort for.
The processor runs at the same place, after the temperature and before sampling, and drops the same tokens.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from kernels import nucleus
from kernels.nucleus import cpu
from kernels.nucleus.reference import MOST_TOKENS

PARAMETERS = "domicile_nucleus"
"""Key of a request's [top_k, top_p, min_p] in its ``extra_args``. What a client writes there has to be removed."""


class Limits(NamedTuple):
    """What a request asked for. Zero, one and zero are off."""

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


OFF = Limits()
_TYPES = (torch.int64, torch.float32, torch.float32)


def take_over(params: SamplingParams) -> None:
    """Move a request's parameters, in place, to where vLLM does not see them and :class:`Nucleus` does.

    The request's ``extra_args`` become a new dictionary, so that ``params`` may be a shallow copy. Copies that vLLM
    makes of ``params`` (n > 1) keep what is moved. Greedy requests have nothing on: vLLM sees to that.
    """
    extra = {key: value for key, value in (params.extra_args or {}).items() if key != PARAMETERS}
    limits = Limits(max(params.top_k, 0), params.top_p, params.min_p)
    if limits != OFF:
        params.top_k, params.top_p, params.min_p = OFF
        extra[PARAMETERS] = list(limits)
    params.extra_args = extra


class Nucleus(LogitsProcessor):  # type: ignore[misc] # mypy does not follow vllm
    """Drops what the requests of a batch asked to drop. A batch in which nobody did costs nothing."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        """Compiles, where it has to, before the engine is ready. The arguments are those that vLLM gives.

        Raises:
            ValueError: for a vocabulary that the kernels cannot add up. Here, since in a step it would end the engine.
        """
        if (size := vllm_config.model_config.get_vocab_size()) > MOST_TOKENS:
            raise ValueError(f"a vocabulary of {size} tokens cannot be sampled from: {MOST_TOKENS} at most can")
        self._device = device
        self._rows: dict[int, Limits] = {}
        self._height = 0
        self._asked: dict[str, Tensor] = {}
        self._read: dict[int, cpu.Limits] = {}
        if device.type == "cpu":
            cpu.warm()

    def is_argmax_invariant(self) -> bool:
        """The likeliest token is always kept."""
        return True

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the requests as they come, go and change rows."""
        if not process_dict_updates(self._rows, batch_update, _limits):
            return
        self._read.clear()
        self._height = max(self._rows, default=-1) + 1
        if self._device.type == "cpu":
            return
        columns = zip(*(self._rows.get(row, OFF) for row in range(self._height)), strict=True)
        # A parameter that nobody named costs the kernel nothing.
        self._asked = {
            name: torch.tensor(values, dtype=dtype, device=self._device)
            for name, values, off, dtype in zip(Limits._fields, columns, OFF, _TYPES, strict=False)
            if any(value != off for value in values)
        }

    def apply(self, logits: Tensor) -> Tensor:
        """In place, on float32 logits of shape [requests, vocabulary] with the temperature applied."""
        if self._rows:
            # Rows after the last that has something on are none of ours.
            ours = logits[: self._height]
            if self._device.type == "cpu":
                cpu.apply_limits(ours, self._limits(ours))
            else:
                nucleus.apply(ours, **self._asked)
        return logits

    def draw(self, logits: Tensor, temperatures: Tensor, seeds: Tensor) -> Tensor:
        """A token of each row, int64 [requests], as :func:`kernels.nucleus.cpu.draw`; on CPUs only."""
        return cpu.draw(logits, temperatures, self._limits(logits), seeds)

    def _limits(self, logits: Tensor) -> cpu.Limits:
        """Of so many rows, read when the batch has changed: in a busy engine that is every other step."""
        rows, size = logits.shape
        if rows not in self._read:
            self._read[rows] = cpu.together([_read(self._rows.get(row, OFF), size) for row in range(rows)])
        return self._read[rows]


@lru_cache(maxsize=4096)
def _read(limits: Limits, size: int) -> cpu.Limits:
    """One request's, for a vocabulary of this size."""
    asked = {
        name: torch.tensor([value], dtype=dtype)
        for name, value, dtype in zip(Limits._fields, limits, _TYPES, strict=True)
    }
    return cpu.limits(torch.empty(1, size), **asked)


def _limits(params: SamplingParams, *_: Any) -> Limits | None:
    """What :func:`take_over` wrote; ``None`` for anything else, since a client's words must not end the engine."""
    found = (params.extra_args or {}).get(PARAMETERS)
    if not isinstance(found, list | tuple) or len(found) != len(OFF):
        return None
    top_k, top_p, min_p = found
    if not isinstance(top_k, int) or not all(isinstance(one, int | float) for one in (top_p, min_p)):
        return None
    if not math.isfinite(top_p) or not math.isfinite(min_p) or not -(2**63) <= top_k < 2**63:
        return None
    return Limits(top_k, float(top_p), float(min_p))
