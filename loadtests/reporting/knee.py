"""Offered rate against what came of it, window by window, and where the knee is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from loadtests.reporting.promises import kept
from loadtests.reporting.series import View, quantile

WINDOWS = 40
_VARIED = 1.6
"""The highest offered rate over the lowest, at least, for a plot of rate to show anything."""
_FEWEST = 6
_FEWEST_REQUESTS = 5
"""Windows with fewer have no p95 worth a point."""
_BEND = 3.0
"""The latency has turned up where it is so many times what it is at the lowest rates, and stays there."""


@dataclass(frozen=True, slots=True)
class Offered:
    """Windows by their offered rate, in requests a second; first token p95 in seconds; goodput in requests a second."""

    offered: tuple[float, ...]
    p95: tuple[float, ...]
    goodput: tuple[float, ...]
    knee: float | None


def offered_against_latency(view: View) -> Offered | str:
    """What each window offered and got, or why that shows nothing."""
    requests = view.requests
    if not requests.records:
        return "No request was sent, so there is no rate."
    width = max(1.0, view.seconds / WINDOWS)
    good = kept(view, requests)
    points = []
    for begin, end in _windows(view, width):
        inside = (requests.intended >= begin) & (requests.intended < end)
        p95 = quantile(requests.first_token_s[inside], 0.95)
        if inside.sum() >= _FEWEST_REQUESTS and np.isfinite(p95):
            points.append((inside.sum() / (end - begin), p95, good[inside].sum() / (end - begin)))
    points.sort()
    rates = [one[0] for one in points]
    if len(points) < _FEWEST or rates[-len(rates) // 20 - 1] < _VARIED * rates[len(rates) // 20]:
        return "The offered rate hardly varied, so it is not drawn against latency: a ramp shows that."
    offered, latency, goodput = (tuple(float(one[place]) for one in points) for place in range(3))
    return Offered(offered, latency, goodput, knee(offered, latency))


def knee(offered: Sequence[float], latency: Sequence[float]) -> float | None:
    """The lowest rate from which on the latency's running median stays above three times its level at low rates.

    ``offered`` rises. ``None`` where it never does.
    """
    smooth = [float(np.median(latency[max(0, at - 2) : at + 3])) for at in range(len(latency))]
    calm = float(np.median(smooth[: max(3, len(smooth) // 4)]))
    at = len(smooth)
    while at and smooth[at - 1] > _BEND * calm:
        at -= 1
    return None if at == len(smooth) else float(offered[at])


def _windows(view: View, width: float) -> list[tuple[float, float]]:
    """Stretches of about ``width`` seconds that lie within one slice of this side."""
    spans = [one for one in view.run.plan.get("phases", ()) if one.get("side", view.side) == view.side]
    found = []
    for span in spans:
        begin, end = float(span["begin"]), min(float(span["end"]), view.ends)
        pieces = max(1, round((end - begin) / width))
        cuts = np.linspace(begin, end, pieces + 1)
        found += [(float(low), float(high)) for low, high in pairwise(cuts) if high > low]
    return found
