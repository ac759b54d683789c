"""The live table of a country's replicas, as one gateway process knows it.

Serve keeps the set fresh through the router; the gateway adds what it learns by itself: tokens that it sent
and that no report shows yet, and addresses that did not answer. Written from Serve's thread and read from the
gateway's: what is shared is replaced whole, never edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic

from serving.placement import Replica

QUARANTINE_S = 2.0
"""How long a replica that did not answer is left alone: Serve's own health check finds a dead one in this time."""

UNKNOWN_CONTEXT = 1 << 20

Watcher = Callable[[Sequence[Replica], Sequence[Replica]], None]
"""Hears which replicas of a model were reported before, and which are now. Called in the reporter's thread."""


class Table:
    """Replicas by model."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._reported: dict[str, tuple[Replica, ...]] = {}
        self._sent: dict[str, int] = {}
        self._avoided: dict[str, float] = {}
        self._watcher: Watcher = _nobody

    def watch(self, watcher: Watcher) -> None:
        """Tell of every report from now on, and of what is known already."""
        self._watcher = watcher
        for replicas in self._reported.values():
            watcher((), replicas)

    def report(self, model: str, replicas: tuple[Replica, ...]) -> None:
        """Replace what is known of a model's replicas."""
        former = self._reported.get(model, ())
        self._reported = {**self._reported, model: replicas}
        self._watcher(former, replicas)

    def replicas(self, model: str) -> list[Replica]:
        """The model's replicas with the load that this gateway knows of, the unreachable marked unhealthy."""
        now = self._clock()
        return [
            replace(
                replica,
                healthy=replica.healthy and self._avoided.get(replica.id, 0.0) <= now,
                outstanding_tokens=replica.outstanding_tokens + self._sent.get(replica.id, 0),
            )
            for replica in self._reported.get(model, ())
        ]

    def models(self) -> set[str]:
        """The models that somebody could serve now."""
        return {
            model
            for model in self._reported
            if any(replica.healthy and not replica.draining for replica in self.replicas(model))
        }

    def longest_context(self) -> int:
        """The longest context that any replica serves, in tokens; a generous one while none has said."""
        known = [replica.context_length for replicas in self._reported.values() for replica in replicas]
        return max(known, default=0) or UNKNOWN_CONTEXT

    def avoid(self, replica: Replica) -> None:
        """Leave a replica alone for a while."""
        now = self._clock()
        self._avoided = {id_: until for id_, until in self._avoided.items() if until > now}
        self._avoided[replica.id] = now + QUARANTINE_S

    @contextmanager
    def serving(self, replica: Replica, tokens: int) -> Iterator[None]:
        """Count tokens against a replica while a request is with it."""
        self._sent[replica.id] = self._sent.get(replica.id, 0) + tokens
        try:
            yield
        finally:
            left = self._sent.pop(replica.id, 0) - tokens
            if left:
                self._sent[replica.id] = left


def _nobody(former: Sequence[Replica], now: Sequence[Replica]) -> None:
    """Watches where nobody does."""


live = Table()
"""This process's table: the router, which Serve makes, and the gateway have nothing else in common."""
