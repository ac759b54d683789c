"""A replica: an engine and what stands before it, in virtual time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

from serving.batching.jobs import Refusal
from serving.batching.pacer import TICK_S
from serving.batching.simulation.engine import Engine, StockEngine
from serving.batching.simulation.fair import FairEngine
from serving.batching.simulation.front import Front, OpenDoor, Paced, strictest_step_s
from serving.batching.simulation.requests import Request
from serving.batching.simulation.scenario import Scenario
from tenants.country import Slo


@dataclass(slots=True)
class News:
    """What happened at a replica at one moment."""

    served: list[Request] = field(default_factory=list)
    given_up: list[Request] = field(default_factory=list)
    """Let in once, and never begun."""
    late: list[Request] = field(default_factory=list)
    """Begun, and past their deadline."""


class Replica:
    """One of a country's."""

    def __init__(self, serial: int, scenario: Scenario, slo: Slo, rng: Random, now: float) -> None:
        """
        Args:
            serial: of no other replica of the country, past ones included.
        """
        self.serial = serial
        self.since = now
        self.outstanding = 0
        """Tokens of the requests that are here, as choosing counts them."""
        self.ticks_at = math.inf
        """When those who wait are looked at, whatever else happens."""
        self.engine, self._front = _parts(scenario, slo, rng)

    @property
    def requests(self) -> list[Request]:
        """All that are here."""
        return [*self.engine.requests, *self._front.waiting]

    def offer(self, request: Request, now: float) -> tuple[Refusal | None, News]:
        """Take a request or turn it away. Others may be given up on the occasion."""
        refusal = self._front.offer(request, now)
        if refusal is not None:
            return refusal, News()
        self.outstanding += request.outstanding_tokens
        news = News()
        self._pump(now, news)
        return None, news

    def step(self, now: float) -> News:
        """What is under way in the engine ends now. It goes on with what it has before the front hears of it."""
        news = News()
        first, news.served = self.engine.finish(now)
        news.late = self.engine.overdue(now)
        self.engine.begin(now)
        for request in news.served:
            self._front.ended(request)
        for request in news.late:
            self._front.withdrawn(request)
        for request in (*news.served, *news.late):
            self.outstanding -= request.outstanding_tokens
        if first or news.served or news.late:
            self._pump(now, news)
        return news

    def tick(self, now: float) -> News:
        """Look at those who wait."""
        news = News()
        self._pump(now, news)
        return news

    def die(self, now: float) -> list[Request]:
        """All that it had, in the order in which it had it. It must not be used any more."""
        self.engine.settle(now)
        return self.requests

    def _pump(self, now: float, news: News) -> None:
        pumped = self._front.pump(now)
        for request in pumped.started:
            self.engine.add(request, now)
        if pumped.started and self.engine.idle:
            self.engine.begin(now)
        for request in pumped.expired:
            self.outstanding -= request.outstanding_tokens
        news.given_up += pumped.expired
        if not self._front.waiting:
            self.ticks_at = math.inf
        elif not now < self.ticks_at < math.inf:
            self.ticks_at = now + TICK_S


def _parts(scenario: Scenario, slo: Slo, rng: Random) -> tuple[Engine, Front]:
    if scenario.scheduler == "vllm":
        stock = StockEngine(scenario.step_time, scenario.engine, rng)
        return stock, OpenDoor(stock)
    learns = scenario.model == "learned"
    fair = FairEngine(scenario.step_time, scenario.engine, rng, step_s=strictest_step_s(slo), learns=learns)
    return fair, Paced(fair, slo)
