"""A country in virtual time: its replicas, its callers, and what goes wrong there. It knows no other country."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from operator import attrgetter

from serving.batching.jobs import Refusal
from serving.batching.simulation.replica import News, Replica
from serving.batching.simulation.requests import UNAVAILABLE, Ending, Request
from serving.batching.simulation.scenario import Fault, Scenario, Site
from serving.batching.simulation.traffic import Traffic, generator
from tenants.country import Slo

ATTEMPTS = 4
"""Replicas that one request is offered to at most, as the gateway does."""
MOST_LOST = 2
"""Replicas that may die under a request: it may be the request that ends them."""
RETRY_S = 3.0
"""After which a refused user of a closed loop comes back where it is not told when."""
_OUTSTANDING = attrgetter("outstanding")


class Country:
    """One run of one country. To be run once."""

    def __init__(self, scenario: Scenario, site: Site) -> None:
        self.site = site
        self.slo = site.slo or Slo()
        self.window_s = scenario.duration_s
        self.requests: list[Request] = []
        """All that were ever asked."""
        self.progress: list[tuple[int, int]] = []
        """By request: prompt and answer tokens that had been computed when the window closed."""
        self.busy_s = 0.0
        """Time that engines worked within the window..."""
        self.alive_s = 0.0
        """...and time that they were there."""
        self.now = 0.0
        self._scenario = scenario
        self._traffic = Traffic(scenario, site)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._born = 0
        self._watched: dict[int, float] = {}
        self._ticking: dict[int, float] = {}
        self._places: list[Replica | None] = [self._new_replica() for _ in range(site.replicas)]
        self._alive = [one for one in self._places if one]
        for user, one in enumerate(self._traffic.users):
            self._at(one.first, self._asking(user))
        chance = generator(scenario.seed, site.code, "faults")
        for fault in scenario.faults:
            if site.replicas and fault.country in (None, site.code):
                place = chance.randrange(site.replicas) if fault.replica is None else fault.replica
                self._at(fault.at_s, self._going_wrong(fault, place))
        self._at(self.window_s, self._close)

    def run(self) -> None:
        """Until everything that was asked has ended."""
        events = self._events
        coming = iter(self._traffic.requests)
        arrival = next(coming, None)
        while events or arrival:
            if arrival and (not events or arrival.arrived <= events[0][0]):
                self.now = arrival.arrived
                self._ask(arrival)
                arrival = next(coming, None)
            else:
                self.now, _, happen = heappop(events)
                happen()

    def _at(self, time: float, happen: Callable[[], None]) -> None:
        self._serial += 1
        heappush(self._events, (time, self._serial, happen))

    def _ask(self, request: Request) -> None:
        self.requests.append(request)
        self._offer(request)

    def _asking(self, user: int) -> Callable[[], None]:
        def ask() -> None:
            if self.now < self._traffic.users[user].until:
                self._ask(self._traffic.ask(user, self.now))

        return ask

    def _offer(self, request: Request) -> None:
        """To one replica after the other, until one takes it."""
        kindest: Refusal | None = None
        while len(request.tried) < ATTEMPTS and (replica := self._choose(request)):
            request.tried.add(replica.serial)
            refusal, news = replica.offer(request, self.now)
            if refusal is None:
                self._follow(replica, news)
                return
            if kindest is None or _retry_s(refusal) < _retry_s(kindest):
                kindest = refusal
        if request.answered:
            self._end(request, Ending.FAILED)
        elif request.expired:
            self._end(request, Ending.EXPIRED)
        else:
            self._end(request, kindest.reason if kindest else UNAVAILABLE, _retry_s(kindest))

    def _choose(self, request: Request) -> Replica | None:
        """The one with the least work ahead of the first token, as :func:`serving.placement.choose` has it.

        No two requests begin alike here, so each is at home anywhere.
        """
        candidates = self._alive
        if request.tried:
            candidates = [one for one in candidates if one.serial not in request.tried]
        if not candidates:
            return None
        home = candidates[request.affinity % len(candidates)]
        least = min(candidates, key=_OUTSTANDING)
        return home if home.outstanding <= least.outstanding + request.length.prompt else least

    def _follow(self, replica: Replica, news: News) -> None:
        """Enter what came of something at a replica, and when to look at it again."""
        for request in news.served:
            self._end(request, Ending.SERVED)
        for request in news.late:
            self._end(request, Ending.EXPIRED)
        serial, engine = replica.serial, replica.engine
        if engine.ends != self._watched.get(serial) and engine.ends < math.inf:
            self._at(engine.ends, self._stepping(replica, engine.ends))
        self._watched[serial] = engine.ends
        if replica.ticks_at != self._ticking.get(serial) and replica.ticks_at < math.inf:
            self._at(replica.ticks_at, self._tick_of(replica, replica.ticks_at))
        self._ticking[serial] = replica.ticks_at
        for request in news.given_up:
            request.expired = True
            self._offer(request)

    def _stepping(self, replica: Replica, ends: float) -> Callable[[], None]:
        def step() -> None:
            # Where something came in between, another event stands for the new end.
            if self._watched.get(replica.serial) == ends:
                self._follow(replica, replica.step(self.now))

        return step

    def _tick_of(self, replica: Replica, at: float) -> Callable[[], None]:
        def tick() -> None:
            if self._ticking.get(replica.serial) == at:
                self._follow(replica, replica.tick(self.now))

        return tick

    def _going_wrong(self, fault: Fault, place: int) -> Callable[[], None]:
        def happen() -> None:
            replica = self._places[place]
            if replica is None:
                return
            if fault.action == "stall":
                replica.engine.stall(self.now, fault.for_s)
                self._follow(replica, News())
            else:
                self._die(replica, place)
                self._at(self.now + fault.for_s, lambda: self._replace(place))

        return happen

    def _die(self, replica: Replica, place: int) -> None:
        lost = replica.die(self.now)
        self._places[place] = None
        self._alive.remove(replica)
        self._watched.pop(replica.serial, None)
        self._ticking.pop(replica.serial, None)
        self._retire(replica)
        for request in lost:
            request.lost += 1
            if self._scenario.lost == "fail" or request.lost >= MOST_LOST:
                self._end(request, Ending.FAILED)
            else:
                self._offer(request)

    def _replace(self, place: int) -> None:
        self._places[place] = self._new_replica()
        self._alive = [one for one in self._places if one]

    def _new_replica(self) -> Replica:
        self._born += 1
        rng = generator(self._scenario.seed, self.site.code, "replica", self._born)
        return Replica(self._born, self._scenario, self.slo, rng, self.now)

    def _retire(self, replica: Replica) -> None:
        """Count its time within the window."""
        if replica.since < self.window_s and self.now <= self.window_s:
            self.busy_s += replica.engine.busy_by(self.now)
            self.alive_s += self.now - replica.since

    def _close(self) -> None:
        """The window ends: what was done by now is what the country managed in it."""
        for replica in self._alive:
            replica.engine.settle(self.now)
            self._retire(replica)
        self.progress = [(one.prefilled, one.answered) for one in self.requests]

    def _end(self, request: Request, ending: str, retry_s: float = 0.0) -> None:
        request.ending = ending
        request.ended = self.now
        if request.user >= 0:
            user = self._traffic.users[request.user]
            served = ending == Ending.SERVED
            pause_s = user.think_s if served else max(user.think_s, retry_s or RETRY_S)
            self._at(self.now + pause_s, self._asking(request.user))


def _retry_s(refusal: Refusal | None) -> float:
    return RETRY_S if refusal is None or refusal.retry_after_s is None else refusal.retry_after_s
