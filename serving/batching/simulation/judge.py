"""What came of a simulation: counts, goodput, latencies, fairness."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from serving.batching.jobs import Account
from serving.batching.ledger import virtual_tokens
from serving.batching.simulation.country import Country
from serving.batching.simulation.requests import Ending, Request

BACKLOGGED = 0.9
"""An organisation that got less than this share of what it asked for within the window had something waiting."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """In seconds, of the requests that were served; ``None`` where there are none."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Of some requests. Every one that was offered is served, refused, expired or failed."""

    offered: int
    served: int
    refused: dict[str, int]
    """By reason."""
    expired: int
    failed: int
    kept: int
    """Served with the first token and the mean time between tokens within the promise."""
    goodput: float | None
    """Share of the offered that were kept; ``None`` where nothing was offered."""
    first_token_s: Quantiles
    inter_token_s: Quantiles
    """Of each request's mean."""
    prompt_tokens_per_s: float
    """Prefilled within the window, also for requests that came to nothing."""
    answer_tokens_per_s: float
    """Generated within the window."""


@dataclass(frozen=True, slots=True)
class CountryResult:
    """Of one country."""

    code: str
    replicas: int
    total: Figures
    classes: dict[str, Figures]
    organisations: dict[str, Figures]
    utilisation: float | None
    """Of the replicas' time within the window, what their engines worked; ``None`` where there were none."""
    fairness: float | None
    """Jain's index over what backlogged accounts were served, by their weight; ``None`` for less than two."""
    ended_s: float
    """When the last request had ended."""


@dataclass(frozen=True, slots=True)
class Result:
    """Of a simulation."""

    scenario: str
    seed: int
    scheduler: str
    duration_s: float
    countries: tuple[CountryResult, ...]


Measured = tuple[Request, tuple[int, int]]
"""A request, and the prompt and answer tokens computed for it within the window."""


def judge(country: Country) -> CountryResult:
    """Of a country that was run."""
    measured = list(zip(country.requests, country.progress, strict=True))

    def figures(some: Sequence[Measured]) -> Figures:
        return _figures(some, country.window_s)

    by_class = _grouped(measured, lambda one: str(one[0].customer.service_class))
    by_organisation = _grouped(measured, lambda one: one[0].customer.organisation)
    return CountryResult(
        code=country.site.code,
        replicas=country.site.replicas,
        total=figures(measured),
        classes={name: figures(some) for name, some in sorted(by_class.items())},
        organisations={name: figures(some) for name, some in sorted(by_organisation.items())},
        utilisation=_rounded(country.busy_s / country.alive_s) if country.alive_s else None,
        fairness=_fairness(measured),
        ended_s=_rounded(max((request.ended or 0.0 for request in country.requests), default=0.0)),
    )


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """The least of the ordered values that at least ``share`` of them do not exceed; ``None`` of no values."""
    return _rounded(ordered[max(0, math.ceil(share * len(ordered)) - 1)]) if ordered else None


def jain(shares: Sequence[float]) -> float:
    """1 where all have the same, 1/n where one has everything (Jain, Chiu and Hawe, DEC-TR-301, 1984)."""
    squares = math.fsum(share * share for share in shares)
    return math.fsum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def _figures(some: Sequence[Measured], window_s: float) -> Figures:
    requests = [request for request, _ in some]
    endings = Counter(str(request.ending) for request in requests)
    served = [request for request in requests if request.ending == Ending.SERVED]
    kept = sum(request.kept for request in served)
    first = [waited for request in served if (waited := request.first_token_s) is not None]
    between = [mean for request in served if (mean := request.inter_token_s) is not None]
    return Figures(
        offered=len(requests),
        served=len(served),
        refused={reason: number for reason, number in sorted(endings.items()) if reason not in set(Ending)},
        expired=endings[Ending.EXPIRED],
        failed=endings[Ending.FAILED],
        kept=kept,
        goodput=_rounded(kept / len(requests)) if requests else None,
        first_token_s=_quantiles(first),
        inter_token_s=_quantiles(between),
        prompt_tokens_per_s=_rounded(sum(prompt for _, (prompt, _) in some) / window_s),
        answer_tokens_per_s=_rounded(sum(answer for _, (_, answer) in some) / window_s),
    )


def _fairness(measured: Iterable[Measured]) -> float | None:
    asked: Counter[Account] = Counter()
    got: dict[Account, float] = {}
    share: dict[Account, float] = {}
    for request, (prompt, answer) in measured:
        account = request.account
        asked[account] += round(virtual_tokens(request.length.prompt, request.length.output, 1.0))
        got[account] = got.get(account, 0.0) + virtual_tokens(prompt, answer, 1.0)
        share[account] = request.customer.share
    backlogged = [got[account] / share[account] for account in got if got[account] < BACKLOGGED * asked[account]]
    return _rounded(jain(backlogged)) if len(backlogged) > 1 else None


def _grouped(measured: Iterable[Measured], key: Callable[[Measured], Key]) -> dict[Key, list[Measured]]:
    groups: dict[Key, list[Measured]] = {}
    for one in measured:
        groups.setdefault(key(one), []).append(one)
    return groups


def _quantiles(values: list[float]) -> Quantiles:
    values.sort()
    return Quantiles(quantile(values, 0.5), quantile(values, 0.95), quantile(values, 0.99))


def _rounded(value: float) -> float:
    """To six digits behind the point: microseconds are below what a simulation knows."""
    return round(value, 6)
