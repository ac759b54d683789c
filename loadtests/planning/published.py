"""What is known of traces that were published: lengths, inter-arrival times, how unevenly clients ask.

A distribution of lengths is a quantile function, given at some probabilities, monotone and log-linear in between. The
median, p90, p99 and the mean are the source's. What lies between is placed by the look of the data (Azure's
conversations are two heaps, of questions around 400 and around 1,100 tokens) and so that the mean comes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

Quantiles = tuple[tuple[float, float], ...]
"""Probability and value, both rising; the probabilities go from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Published:
    """A trace, as far as it is imitated. Prompt and answer are independent: in Azure's traces they are uncorrelated."""

    source: str
    prompt: Quantiles
    """Tokens."""
    output: Quantiles
    arrival_cv: float
    """Coefficient of variation of the inter-arrival times, for ``process: gamma``."""


def _log_normal(median: float, tail_from: float, exponent: float, most: float) -> Quantiles:
    """A log-normal distribution of σ = 1 with a Pareto tail, as a table."""
    normal = NormalDist()
    body = [(p, median * math.exp(normal.inv_cdf(p))) for p in (0.01, *(number / 20 for number in range(1, 20)))]
    last = median * math.exp(normal.inv_cdf(tail_from))
    tail = [(p, last * ((1 - tail_from) / (1 - p)) ** (1 / exponent)) for p in (0.97, 0.99, 0.995, 0.999)]
    return ((0.0, median * math.exp(-3.5)), *body, *tail, (1.0, most))


def _exponential(mean: float, most: float) -> Quantiles:
    """An exponential distribution as a table; less than one token is one."""
    probabilities = [*(number / 50 for number in range(1, 50)), 0.99, 0.995, 0.999]
    inner = ((p, max(1.0, -mean * math.log(1 - p))) for p in probabilities)
    return ((0.0, 1.0), *inner, (1.0, most))


PUBLISHED: Final[Mapping[str, Published]] = {
    "azure-conversation": Published(
        source="Patel et al., Splitwise, ISCA 2024; AzurePublicDataset, AzureLLMInferenceTrace_conv.csv, 2023",
        prompt=((0, 3), (0.05, 150), (0.25, 380), (0.5, 1020), (0.75, 1195), (0.9, 2735), (0.99, 4142), (1, 14050)),
        output=((0, 5), (0.05, 30), (0.25, 84), (0.5, 129), (0.75, 391), (0.9, 424), (0.99, 601), (1, 1000)),
        arrival_cv=1.09,
    ),
    "azure-code": Published(
        source="Patel et al., Splitwise, ISCA 2024; AzurePublicDataset, AzureLLMInferenceTrace_code.csv, 2023",
        prompt=((0, 3), (0.05, 150), (0.25, 700), (0.5, 1469), (0.75, 2706), (0.9, 5194), (0.99, 7436), (1, 7437)),
        output=(
            *((0, 1), (0.05, 4), (0.25, 7), (0.5, 13), (0.75, 23.5), (0.9, 55)),
            *((0.95, 95), (0.99, 252), (0.999, 500), (1, 1899)),
        ),
        arrival_cv=13.0,
    ),
    # The means (12,035 and 343) are the paper's. Its quantiles are not printed: these follow excerpts of the trace.
    "mooncake-conversation": Published(
        source="Qin et al., Mooncake, FAST 2025; kvcache-ai/Mooncake, FAST25-release/traces/conversation_trace.jsonl",
        prompt=(
            *((0, 890), (0.05, 1000), (0.25, 2900), (0.5, 7000), (0.75, 15750)),
            *((0.9, 27800), (0.95, 38000), (0.99, 66000), (1, 126000)),
        ),
        output=((0, 1), (0.05, 12), (0.25, 190), (0.5, 335), (0.75, 472), (0.9, 610), (0.99, 1000), (1, 2000)),
        arrival_cv=1.0,
    ),
    # The paper gives the shapes: log-normal prompts with a Pareto tail (here p95 on, exponent 2), exponential answers.
    # It prints no means for m-large: they are Azure's conversations' here.
    "servegen": Published(
        source="Xiang et al., ServeGen, 2025, arXiv 2505.09999, sections 3 and 4",
        prompt=_log_normal(666, tail_from=0.95, exponent=2, most=32768),
        output=_exponential(211, 2000),
        arrival_cv=1.2,
    ),
}

MOONCAKE_HITS: Final = 0.366
"""Share of the prefix blocks of Mooncake's conversations that were seen before."""

SERVEGEN_SKEW: Final = 0.73
"""Zipf exponent of the shares of ServeGen's m-large clients.

Of 31 such clients the first 1, 5 and 10 make 16, 44 and 61% of the load; of m-large's they make 16, 43 and 63%.
"""
SERVEGEN_CV: Final[Quantiles] = ((0, 0.5), (0.25, 1.0), (0.5, 1.2), (0.75, 2.2), (0.9, 6.2), (1, 12.0))
"""Coefficient of variation of a client's inter-arrival times, over m-large's clients."""
SERVEGEN_GAMMA: Final = 0.7
"""Share of m-large's clients whose inter-arrival times a gamma distribution fits best; to others, Weibull's does."""
