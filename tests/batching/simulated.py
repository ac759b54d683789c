"""Small simulations for tests, and a country that is watched while it runs."""

from __future__ import annotations

from typing import Any

from serving.batching.simulation.country import Country
from serving.batching.simulation.replica import News, Replica
from serving.batching.simulation.requests import Request
from serving.batching.simulation.scenario import Scenario

STEP_TIME = {"fixed_s": 0.02, "prefill_token_s": 1e-3, "decode_stream_s": 2e-3, "context_token_s": 1e-6}


def scenario(**changes: Any) -> Scenario:
    """One country, one replica, two organisations, a light load; and what is named."""
    plain: dict[str, Any] = {
        "name": "test",
        "duration_s": 10.0,
        "step_time": STEP_TIME,
        "countries": [{"code": "ee", "utc_offset_h": 0.0}],
        "organisations": [{"id": "acme", "count": 2}],
        "traffic": [traffic(rate=1.0)],
    }
    return Scenario.model_validate({**plain, **changes})


def traffic(organisations: str = "acme", prompt: int = 50, output: int = 20, **arrivals: Any) -> dict[str, Any]:
    """A stream of requests of one size."""
    return {
        "organisations": organisations,
        "arrivals": arrivals,
        "lengths": {"prompt": prompt, "output": output},
    }


class Watched(Country):
    """Counts what each request goes through, and sees that no replica idles beside work that it can do in time."""

    def __init__(self, described: Scenario, place: int = 0) -> None:
        self.endings: dict[Request, list[str]] = {}
        self.most_at_once = 0
        self.idled_beside: set[Request] = set()
        """Requests that waited while their engine did nothing: there must be none but those it gave up then."""
        super().__init__(described, described.countries[place])

    def _ask(self, request: Request) -> None:
        super()._ask(request)
        under_way = sum(not one.ending for one in self.requests)
        self.most_at_once = max(self.most_at_once, under_way)

    def _follow(self, replica: Replica, news: News) -> None:
        assert not (replica.engine.idle and replica.engine.requests)
        if replica.engine.idle:
            self.idled_beside |= set(replica.requests)
        assert replica.outstanding == sum(one.outstanding_tokens for one in replica.requests)
        super()._follow(replica, news)

    def _end(self, request: Request, ending: str, retry_s: float = 0.0) -> None:
        self.endings.setdefault(request, []).append(ending)
        super()._end(request, ending, retry_s)


def ran(described: Scenario, place: int = 0) -> Watched:
    """A country of the scenario, after its end."""
    country = Watched(described, place)
    country.run()
    return country
