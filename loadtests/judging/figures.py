"""What was measured of each country and service class, apart from whether it is good enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.judging.evidence import Evidence, counts, keeps, streamed
from loadtests.judging.statistics import CONFIDENCE, Estimate, Interval, proportion, quantile, weighted_quantile
from loadtests.record import Outcome, Record

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and its interval of 95% confidence."""

    value: float
    interval: Interval


Quantiles = Mapping[str, Figure]
"""By name: p50, p95, p99. Empty where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Group:
    """The judged requests of one country and service class, after the warm-up. Times in seconds."""

    country: str
    service_class: str
    counts: Mapping[str, int]
    """``sent``, and of these ``finished``, ``refused``, ``failed`` and ``aborted``."""
    seconds: float
    """For how long they were sent."""
    tokens_in_per_s: float
    tokens_out_per_s: float
    first_token_s: Quantiles
    """Of answers that stream. Who waited in vain for longer than was promised counts with that time."""
    inter_token_s: Quantiles
    """Over tokens, not requests: :func:`loadtests.judging.statistics.weighted_quantile`."""
    end_to_end_s: Quantiles
    """Of requests that finished."""
    goodput: Figure | None
    """Share that was served as promised, of those sent less the aborted ones: see :mod:`loadtests.judging.evidence`."""
    objective: float
    budget_used: Figure | None
    """Share of the error budget, which is what the objective leaves to one; above 1 where it is overdrawn."""


def groups(evidence: Evidence) -> tuple[Group, ...]:
    """One for each country and service class of which anything was judged."""
    return tuple(_group(evidence, *key, records) for key, records in evidence.groups.items())


def _group(evidence: Evidence, country: str, service_class: str, records: Sequence[Record]) -> Group:
    promise = evidence.promise(country, service_class)
    told = [keeps(one, promise) for one in records if counts(one, promise)]
    seconds = sum(end - begin for begin, end in evidence.spans(evidence.judged_phases, country))
    ended = Counter(one.outcome for one in records)
    goodput = _figure(proportion(told)) if told else None
    return Group(
        country=country,
        service_class=service_class,
        counts={"sent": len(records), **{one.value: ended[one] for one in Outcome}},
        seconds=seconds,
        tokens_in_per_s=sum(one.prompt_tokens for one in records) / seconds if seconds else 0.0,
        tokens_out_per_s=sum(one.output_tokens for one in records) / seconds if seconds else 0.0,
        first_token_s=_quantiles([value for one in records if (value := evidence.waited_s(one)) is not None]),
        inter_token_s=_inter_token(records),
        end_to_end_s=_quantiles([one.end_to_end_s for one in records if one.outcome is Outcome.FINISHED]),
        goodput=goodput,
        objective=promise.objective,
        budget_used=_budget(goodput, promise.objective),
    )


def _figure(estimate: Estimate) -> Figure:
    return Figure(estimate.value, estimate.interval(CONFIDENCE))


def _budget(goodput: Figure | None, objective: float) -> Figure | None:
    if goodput is None:
        return None
    low, high = ((1 - share) / (1 - objective) for share in (goodput.interval.high, goodput.interval.low))
    return Figure((1 - goodput.value) / (1 - objective), Interval(low, high))


def _quantiles(values: Sequence[float]) -> Quantiles:
    return {name: _figure(quantile(values, share)) for name, share in SHARES.items()} if values else {}


def _inter_token(records: Sequence[Record]) -> Quantiles:
    pairs = [
        (gap / count, count, owner)
        for owner, one in enumerate(one for one in records if streamed(one) and one.gaps)
        for gap, count in one.gaps
        if count
    ]
    if not pairs:
        return {}
    values, weights, owners = np.array(pairs, float).T
    return {
        name: _figure(weighted_quantile(values, weights, owners.astype(np.int64), share))
        for name, share in SHARES.items()
    }
