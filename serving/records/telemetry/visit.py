"""One generating request at the door, from its head to the last byte: what the metrics and its trace are told of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Token
from time import perf_counter, time_ns
from typing import Protocol

from serving.errors import DomicileError, Refused
from serving.records.telemetry import metrics
from serving.records.telemetry.fairness import Fairness
from serving.records.telemetry.instruments import Labels
from serving.records.telemetry.schema import OPERATIONS, PROVIDER, Outcome, Value
from serving.records.telemetry.telemetry import Telemetry
from serving.records.telemetry.trace import Trace, current
from serving.types import Caller, Endpoint, Prompt, ServiceClass
from tenants.country import Slo

UNKNOWN = "unknown"


class Spent(Protocol):
    """Tokens of one answer."""

    @property
    def prompt(self) -> int: ...
    @property
    def completion(self) -> int: ...
    @property
    def cached(self) -> int: ...


class Visits:
    """Makes visits, and keeps what they have in common."""

    def __init__(self, telemetry: Telemetry) -> None:
        country = telemetry.country
        self.telemetry = telemetry
        self.add = telemetry.instruments.add
        self.observe = telemetry.instruments.observe
        self.models = frozenset(model.id for model in country.models)
        self.promises: Mapping[str, Slo] = {one.value: country.slo.promise(one) for one in ServiceClass}
        self.fairness = Fairness(country.telemetry.threshold)
        self.active = 0
        read = telemetry.instruments.read
        read(metrics.ACTIVE, lambda: {(): self.active})
        read(metrics.OBJECTIVE, self._objectives)
        for metric, figure in (
            (metrics.FAIRNESS, "index"),
            (metrics.TOP_SHARE, "top_share"),
            (metrics.ORGANISATIONS, "organisations"),
        ):
            read(metric, lambda figure=figure: self._fairness(figure))  # type: ignore[misc] # a default binds it

    def begin(self, endpoint: Endpoint, request_id: str) -> Visit:
        return Visit(self, endpoint, request_id)

    def refused(self, error: DomicileError, service_class: str = UNKNOWN) -> None:
        """Somebody was turned away, before or without generating."""
        self.add(metrics.REFUSALS, service_class, error.reason.key)

    def _objectives(self) -> Mapping[Labels, float]:
        return {(name,): promise.objective for name, promise in self.promises.items()}

    def _fairness(self, figure: str) -> Mapping[Labels, float]:
        figures = self.fairness.figures()
        return {(): figures[figure]} if figure in figures else {}


class Visit:
    """What is known so far. It ends once, with :meth:`end`."""

    __slots__ = (
        "_begun",
        "_caller",
        "_endpoint",
        "_error",
        "_first",
        "_left",
        "_prompt",
        "_request_id",
        "_spent",
        "_token",
        "_trace",
        "_wall",
        "_with",
    )

    def __init__(self, visits: Visits, endpoint: Endpoint, request_id: str) -> None:
        self._with = visits
        self._endpoint = endpoint
        self._request_id = request_id
        self._begun = perf_counter()
        self._first = 0.0
        self._caller: Caller | None = None
        self._prompt: Prompt | None = None
        self._spent: Spent | None = None
        self._error: DomicileError | None = None
        self._left = False
        self._trace: Trace | None = visits.telemetry.sampled()
        self._token: Token[Trace | None] | None = None
        self._wall = 0
        if self._trace is not None:
            self._wall = time_ns()
            self._token = current.set(self._trace)
        visits.active += 1

    def known(self, caller: Caller) -> None:
        """Who asks."""
        self._caller = caller

    def asked(self, prompt: Prompt) -> None:
        """What for."""
        self._prompt = prompt

    def answered(self) -> None:
        """The first bytes of the answer are here."""
        self._first = perf_counter()

    def resumed(self) -> None:
        """Another replica carries the answer on."""
        self._with.add(metrics.RESUMED)

    def spent(self, spent: Spent | None) -> None:
        """What the answer cost, where its engine has said so."""
        self._spent = spent

    def failed(self, error: DomicileError) -> None:
        self._error = error

    def left(self) -> None:
        """The client did not wait for the end."""
        self._left = True

    def end(self) -> None:
        visits, duration_s = self._with, perf_counter() - self._begun
        visits.active -= 1
        asked, service_class = self._labels()
        error = self._error.reason.key if self._error else ""
        outcome = self._outcome()
        visits.add(metrics.REQUESTS, *asked, outcome)
        if self._error is not None:
            visits.refused(self._error, service_class)
        if not self._left:
            visits.observe(metrics.DURATION, duration_s, *asked, error)
        if outcome == Outcome.SERVED:
            self._count(asked)
        kept = self._kept(outcome, duration_s, service_class)
        if kept is not None:
            visits.add(metrics.PROMISES, service_class, "true" if kept else "false")
        if self._trace is not None:
            self._tell(asked, outcome, error)

    def _outcome(self) -> str:
        if self._left:
            return Outcome.LEFT.value
        if self._error is None:
            return Outcome.SERVED.value
        return (Outcome.REFUSED if isinstance(self._error, Refused) else Outcome.FAILED).value

    def _labels(self) -> tuple[tuple[str, str, str], str]:
        """Operation, model and class; a model that the caller made up is unknown."""
        model = self._prompt.model if self._prompt is not None else UNKNOWN
        service_class = self._caller.service_class.value if self._caller is not None else UNKNOWN
        known = model if model in self._with.models else UNKNOWN
        return (OPERATIONS[self._endpoint], known, service_class), service_class

    def _count(self, asked: tuple[str, str, str]) -> None:
        visits, spent = self._with, self._spent
        if self._streamed:
            visits.observe(metrics.FIRST_TOKEN, self._first - self._begun, *asked)
            inter_token_s = self._inter_token_s()
            if inter_token_s is not None:
                visits.observe(metrics.INTER_TOKEN, inter_token_s, *asked)
        if spent is not None:
            visits.observe(metrics.TOKENS_USED, spent.prompt, *asked, "input")
            visits.observe(metrics.TOKENS_USED, spent.completion, *asked, "output")
            if self._caller is not None:
                tokens = spent.prompt - spent.cached + spent.completion
                visits.fairness.served(self._caller.organisation, tokens, self._caller.weight)

    @property
    def _streamed(self) -> bool:
        return self._prompt is not None and self._prompt.stream and self._first > 0

    def _inter_token_s(self) -> float | None:
        """On the answer's average, as the promise means it."""
        if self._spent is None or self._spent.completion < 2:
            return None
        return (perf_counter() - self._first) / (self._spent.completion - 1)

    def _kept(self, outcome: str, duration_s: float, service_class: str) -> bool | None:
        """Whether the promise was kept; ``None`` where nothing was promised, or the client would not wait for it."""
        if outcome == Outcome.FAILED:
            return False
        promise = self._with.promises.get(service_class)
        if outcome != Outcome.SERVED or promise is None or not self._first:
            return None
        if self._streamed:
            inter_token_s = self._inter_token_s() or 0.0
            return self._first - self._begun <= promise.first_token_s and inter_token_s <= promise.inter_token_s
        tokens = self._spent.completion if self._spent else 1
        return duration_s <= promise.first_token_s + promise.inter_token_s * max(0, tokens - 1)

    def _tell(self, asked: tuple[str, str, str], outcome: str, error: str) -> None:
        assert self._trace is not None
        if self._token is not None:
            current.reset(self._token)
        operation, model, service_class = asked
        said: dict[str, Value] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": model,
            "http.route": self._endpoint.value,
            "domicile.request.id": self._request_id,
            "domicile.service_class": service_class,
            "domicile.outcome": outcome,
        }
        if self._prompt is not None:
            said["gen_ai.request.stream"] = self._prompt.stream
        if self._first:
            said["gen_ai.response.time_to_first_chunk"] = self._first - self._begun
        if self._spent is not None:
            said["gen_ai.usage.input_tokens"] = self._spent.prompt
            said["gen_ai.usage.output_tokens"] = self._spent.completion
            said["gen_ai.usage.cache_read.input_tokens"] = self._spent.cached
        self._trace.ended(f"{operation} {model}", self._wall, said, error)
