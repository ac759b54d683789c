"""How many tokens prompts and answers have: fixed, or as in a published trace.

A distribution is a quantile function, given at some probabilities and log-linear in between. Azure's traces are
those of Patel et al., "Splitwise" (ISCA 2024), AzurePublicDataset 2023: the median, p90, p99 and the mean are
theirs. Prompt and answer are drawn independently, as they are uncorrelated there.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from random import Random
from typing import Final, NamedTuple

from serving.batching.simulation.scenario import Lengths

Quantiles = tuple[tuple[float, float], ...]
"""Probability and tokens, both rising; the probabilities go from 0 to 1."""


class Trace(NamedTuple):
    """A published trace, as far as it is imitated."""

    prompt: Quantiles
    output: Quantiles


class Length(NamedTuple):
    """Of one request, in tokens."""

    prompt: int
    output: int
    asked: int
    """Its ``max_tokens``."""


TRACES: Final[Mapping[str, Trace]] = {
    # Means 1155 and 211.
    "azure-conversation": Trace(
        prompt=((0, 3), (0.05, 150), (0.25, 380), (0.5, 1020), (0.75, 1195), (0.9, 2735), (0.99, 4142), (1, 14050)),
        output=((0, 5), (0.05, 30), (0.25, 84), (0.5, 129), (0.75, 391), (0.9, 424), (0.99, 601), (1, 1000)),
    ),
    # Means 2048 and 28.
    "azure-code": Trace(
        prompt=((0, 3), (0.05, 150), (0.25, 700), (0.5, 1469), (0.75, 2706), (0.9, 5194), (0.99, 7436), (1, 7437)),
        output=(
            *((0, 1), (0.05, 4), (0.25, 7), (0.5, 13), (0.75, 23.5), (0.9, 55)),
            *((0.95, 95), (0.99, 252), (0.999, 500), (1, 1899)),
        ),
    ),
}


def sampler(lengths: Lengths, rng: Random) -> Callable[[], Length]:
    """What draws the lengths of one request after the other."""
    if lengths.prompt is not None and lengths.output is not None:
        fixed = _limited(lengths, lengths.prompt, lengths.output)
        return lambda: fixed
    trace = TRACES[lengths.trace or ""]

    def draw() -> Length:
        prompt = lengths.prompt_scale * quantile(trace.prompt, rng.random())
        return _limited(lengths, prompt, lengths.output_scale * quantile(trace.output, rng.random()))

    return draw


def quantile(known: Quantiles, share: float) -> float:
    """The value that a share of a distribution does not exceed; ``share`` in [0, 1]."""
    place = max(1, bisect_left(known, share, key=lambda point: point[0]))
    (low, below), (high, above) = known[place - 1], known[place]
    return below * math.pow(above / below, (share - low) / (high - low))


def _limited(lengths: Lengths, prompt: float, output: float) -> Length:
    drawn = _whole(output, lengths.output_limit)
    return Length(
        prompt=_whole(prompt, lengths.prompt_limit),
        output=drawn,
        asked=drawn if lengths.asked == "exactly" else lengths.output_limit,
    )


def _whole(tokens: float, most: int) -> int:
    return max(1, min(most, math.floor(tokens + 0.5)))
