"""How evenly a gateway's organisations were served lately, as figures in which none of them is named."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from serving.records.telemetry.suppression import Aggregate, told

WINDOW_S = 60.0
"""Figures are of the last one to two of these."""


class Fairness:
    """Tokens by organisation, each over its weight. Written and read by one event loop, but for readings."""

    def __init__(self, threshold: int, clock: Callable[[], float] = monotonic) -> None:
        """
        Args:
            threshold: with fewer organisations than this there are no figures.
        """
        self._threshold = threshold
        self._clock = clock
        self._turned = clock()
        self._now: dict[str, float] = {}
        self._before: dict[str, float] = {}

    def served(self, organisation: str, tokens: int, weight: float) -> None:
        self._turn()
        self._now[organisation] = self._now.get(organisation, 0.0) + tokens / weight

    def figures(self) -> dict[str, float]:
        """``organisations``, ``index`` (Jain, Chiu and Hawe, 1984) and ``top_share``; nothing below the threshold."""
        self._turn()
        shares = self._before.copy()
        for organisation, tokens in self._now.copy().items():
            shares[organisation] = shares.get(organisation, 0.0) + tokens
        count, whole = len(shares), sum(shares.values())
        if not whole:
            return {}
        squares = sum(share * share for share in shares.values())
        figures = {
            "organisations": float(count),
            "index": whole * whole / (count * squares),
            "top_share": max(shares.values()) / whole,
        }
        return told({name: Aggregate(value, count) for name, value in figures.items()}, self._threshold)

    def _turn(self) -> None:
        now = self._clock()
        windows = (now - self._turned) // WINDOW_S
        if windows:
            self._before = self._now if windows == 1 else {}
            self._now = {}
            self._turned += windows * WINDOW_S
