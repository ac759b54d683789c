"""Who asks in a country, when, and for how much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, cycle
from operator import attrgetter
from random import Random

from serving.batching.simulation.arrivals import shares, times
from serving.batching.simulation.lengths import Length, sampler
from serving.batching.simulation.requests import Customer, Request
from serving.batching.simulation.scenario import Arrivals, Scenario, Site, Stream
from serving.types import ServiceClass
from tenants.country import Slo

_AFFINITIES = 2**32


def generator(*of: object) -> Random:
    """A source of chance of its own for whatever is named, the same in every process."""
    return Random("/".join(map(str, of)))  # noqa: S311 (a simulation is repeatable, and keeps no secrets)


class User:
    """One of a closed loop: asks again when it was answered."""

    def __init__(self, customer: Customer, first: float, think_s: float, until: float) -> None:
        self.customer = customer
        self.first = first
        self.think_s = think_s
        self.until = until
        """When it goes."""


class Traffic:
    """All requests of a country."""

    def __init__(self, scenario: Scenario, site: Site) -> None:
        self.users: list[User] = []
        """By number, as requests name them."""
        self._lengths: list[Callable[[], Length]] = []
        self._serial = count()
        self._slo = site.slo or Slo()
        self._path_s = scenario.path_s
        self._rng = generator(scenario.seed, site.code, "places")
        self._customers = {
            group.id: [
                _customer(name, group.plan.service_class, group.weight or group.plan.weight, self._slo)
                for name in group.names
            ]
            for group in scenario.organisations
        }
        drawn: list[tuple[float, Customer, Length]] = []
        for place, stream in enumerate(scenario.traffic):
            if stream.countries and site.code not in stream.countries:
                continue
            if stream.arrivals is None:
                drawn += self._recorded(stream, scenario)
            elif stream.arrivals.users is None:
                drawn += self._open_loop(stream, stream.arrivals, place, scenario, site)
            else:
                self._closed_loop(stream, stream.arrivals, place, scenario, site)
        drawn.sort(key=lambda one: one[0])
        self.requests = [self._request(*one) for one in drawn]
        """Those of the open loops, in the order in which they come."""

    def ask(self, user: int, now: float) -> Request:
        """The user's next request."""
        return self._request(now, self.users[user].customer, self._lengths[user](), user)

    def _recorded(self, stream: Stream, scenario: Scenario) -> Iterator[tuple[float, Customer, Length]]:
        customers = cycle(self._customers[stream.organisations])
        for one, customer in zip(sorted(stream.recorded, key=attrgetter("at_s")), customers, strict=False):
            if one.at_s < scenario.duration_s:
                yield one.at_s, customer, Length(one.prompt, one.output, asked=one.output)

    def _open_loop(
        self, stream: Stream, arrivals: Arrivals, place: int, scenario: Scenario, site: Site
    ) -> Iterator[tuple[float, Customer, Length]]:
        customers = self._customers[stream.organisations]
        for customer, share in zip(customers, shares(len(customers), arrivals.skew), strict=True):
            rng = generator(scenario.seed, site.code, place, customer.organisation)
            draw = sampler(stream.lengths, generator(scenario.seed, site.code, place, customer.organisation, "lengths"))
            rate = (arrivals.rate or 0.0) * share
            for at in times(arrivals, rate, scenario.duration_s, site.utc_offset_h or 0.0, rng):
                yield at, customer, draw()

    def _closed_loop(self, stream: Stream, arrivals: Arrivals, place: int, scenario: Scenario, site: Site) -> None:
        customers = self._customers[stream.organisations]
        until = min(scenario.duration_s, arrivals.ends_s or scenario.duration_s)
        for number in range(arrivals.users or 0):
            rng = generator(scenario.seed, site.code, place, number)
            # Not all at once, so that they do not march in step.
            first = arrivals.begins_s + rng.uniform(0, max(1.0, arrivals.think_s))
            self.users.append(User(customers[number % len(customers)], first, arrivals.think_s, until))
            self._lengths.append(sampler(stream.lengths, rng))

    def _request(self, at: float, customer: Customer, length: Length, user: int = -1) -> Request:
        return Request(
            id=str(next(self._serial)),
            customer=customer,
            account=customer.account,
            length=length,
            arrived=at,
            deadline=at + self._slo.request_s,
            affinity=self._rng.randrange(_AFFINITIES),
            path_s=self._path_s,
            user=user,
        )


def _customer(name: str, service_class: str, weight: float, slo: Slo) -> Customer:
    return Customer(name, ServiceClass(service_class), weight, slo.promise(service_class))
