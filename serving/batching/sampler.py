"""vLLM's sampler on CPUs, with temperature, nucleus and draw in one sweep of a row.

vLLM divides all logits by their temperatures, writes -inf over what is dropped, and draws noise for all that is left:
three sweeps of a batch's vocabulary, and noise is dear. Here a row is swept twice, to find its largest logit and about
what all weigh; only the few that can matter are divided, weighed and given noise. The tokens are the same: the same
noise of the same seeds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor.builtin import MinPLogitsProcessor
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import _SAMPLING_EPS, Sampler

from serving.batching.nucleus import Nucleus

RAW = ("raw_logprobs", "raw_logits")
"""What is reported was read before sampling. Anything else is of the logits that vLLM leaves behind, and we do not."""
_SEEDS = 2**31


class NucleusSampler(Sampler):  # type: ignore[misc] # mypy does not follow vllm
    """Draws where :class:`Nucleus` has all that is to be dropped, and leaves every other batch to vLLM."""

    def sample(
        self, logits: Tensor, sampling_metadata: SamplingMetadata, logprobs_mode_override: str | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """A token of each row, and nothing to report that was not there before. ``logits`` are used up."""
        nucleus = self._nucleus(sampling_metadata, logprobs_mode_override or self.logprobs_mode)
        if nucleus is None:
            sampled: tuple[Tensor, Tensor | None] = super().sample(logits, sampling_metadata, logprobs_mode_override)
            return sampled
        temperature = sampling_metadata.temperature
        likeliest = None if sampling_metadata.all_random else self.greedy_sample(logits)
        drawn = nucleus.draw(logits, temperature, seeds(len(logits), sampling_metadata.generators))
        if likeliest is not None:
            drawn = torch.where(temperature < _SAMPLING_EPS, likeliest, drawn)
        return drawn, None

    def _nucleus(self, asked: SamplingMetadata, mode: str) -> Nucleus | None:
        """Of a batch that it can draw for alone."""
        if asked.all_greedy or mode not in RAW or self.use_fp64_gumbel:
            return None
        if asked.top_k is not None or asked.top_p is not None:
            return None
        found = None
        for processor in asked.logitsprocs.argmax_invariant:
            if isinstance(processor, Nucleus):
                found = processor
            elif not isinstance(processor, MinPLogitsProcessor) or processor.min_p_count:
                return None
        return found


def seeds(rows: int, generators: dict[int, Any]) -> Tensor:
    """One of each row, int64 [rows], drawn as vLLM draws them: a request's own generator moves on by as much."""
    drawn = torch.randint(0, _SEEDS, (rows,), dtype=torch.int64)
    for row, generator in generators.items():
        drawn[row] = torch.randint(0, _SEEDS, (1,), generator=generator, dtype=torch.int64).item()
    return drawn


def draw_in_one_sweep(runner: Any) -> None:
    """Give a model runner this sampler. One that checks drafts keeps vLLM's, which it holds itself."""
    own = runner.sampler
    runner.sampler = NucleusSampler(own.logprobs_mode, own.use_fp64_gumbel)
