"""One generating request at the door, from its head to the last byte: what the metrics and its trace are told of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Token
from dataclasses import dataclass
from time import perf_counter

from serving.errors import DomicileError, Reason, Refused
from serving.records.telemetry import metrics
from serving.records.telemetry.fairness import Fairness
from serving.records.telemetry.metrics import Labels
from serving.records.telemetry.schema import OPERATIONS, PROVIDER, UNKNOWN, Outcome, Value
from serving.records.telemetry.telemetry import Telemetry
from serving.records.telemetry.trace import Trace, current
from serving.types import Caller, Endpoint, Prompt, ServiceClass, Usage
from tenants.country import Slo


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

    def refused(self, reason: Reason, rule: str, service_class: str) -> None:
        """Somebody was turned away, by this rule and for this reason, before or without generating."""
        self.add(metrics.REFUSALS, service_class, rule, reason.key)

    def _objectives(self) -> Mapping[Labels, float]:
        return {(name,): promise.objective for name, promise in self.promises.items()}

    def _fairness(self, figure: str) -> Mapping[Labels, float]:
        figures = self.fairness.figures()
        return {(): figures[figure]} if figure in figures else {}


@dataclass(frozen=True, slots=True)
class End:
    """How a request ended, as far as it came."""

    caller: Caller | None
    prompt: Prompt | None
    usage: Usage | None
    error: BaseException | None
    """What it ended with, where that was no whole answer."""
    left: bool
    """Its client had left; where nothing is wrong, with the whole answer."""

    @property
    def outcome(self) -> Outcome:
        if self.error is None:
            return Outcome.SERVED
        if self.left:
            return Outcome.LEFT
        return Outcome.REFUSED if isinstance(self.error, Refused) else Outcome.FAILED

    @property
    def fault(self) -> str:
        """Of the closed list; empty where nothing went wrong but that the client left."""
        if self.error is None or self.left:
            return ""
        return (self.error.reason if isinstance(self.error, DomicileError) else Reason.INTERNAL_ERROR).key

    @property
    def service_class(self) -> str:
        return self.caller.service_class.value if self.caller is not None else UNKNOWN


class Visit:
    """What is known of one request so far. It ends once, with :meth:`end`."""

    __slots__ = ("_asked", "_begun", "_endpoint", "_first", "_request_id", "_token", "_trace", "_with")

    def __init__(self, visits: Visits, endpoint: Endpoint, request_id: str) -> None:
        self._with = visits
        self._endpoint = endpoint
        self._request_id = request_id
        self._begun = perf_counter()
        self._first = 0.0
        self._asked = (OPERATIONS[endpoint], UNKNOWN, UNKNOWN)
        self._trace: Trace | None = visits.telemetry.sampled()
        if self._trace is not None:
            self._token: Token[Trace | None] = current.set(self._trace)
        visits.active += 1

    def answered(self) -> None:
        """The first bytes of the answer are here."""
        self._first = perf_counter()

    def resumed(self) -> None:
        """Another replica carries the answer on."""
        self._with.add(metrics.RESUMED)

    def receipt(self, usage: Usage) -> None:
        """A receipt is to be signed, and names these tokens. After :meth:`end`, where a replica had to be asked."""
        visits = self._with
        visits.add(metrics.RECEIPTS)
        visits.observe(metrics.TOKENS_USED, usage.prompt_tokens, *self._asked, "input")
        visits.observe(metrics.TOKENS_USED, usage.completion_tokens, *self._asked, "output")

    def end(self, end: End) -> None:
        visits, duration_s = self._with, perf_counter() - self._begun
        visits.active -= 1
        self._asked = (OPERATIONS[self._endpoint], self._model(end.prompt), end.service_class)
        outcome = end.outcome
        visits.add(metrics.REQUESTS, *self._asked, outcome.value)
        if outcome is not Outcome.LEFT:
            visits.observe(metrics.DURATION, duration_s, *self._asked, end.fault)
        if outcome is Outcome.SERVED:
            self._served(end)
        kept = self._kept(end, duration_s)
        if kept is not None:
            visits.add(metrics.PROMISES, end.service_class, "true" if kept else "false")
        if self._trace is not None:
            current.reset(self._token)
            self._tell(self._trace, end)

    def _model(self, prompt: Prompt | None) -> str:
        """One that the country has; a model that the caller made up is unknown."""
        return prompt.model if prompt is not None and prompt.model in self._with.models else UNKNOWN

    def _served(self, end: End) -> None:
        visits, usage = self._with, end.usage
        if end.prompt is not None and end.prompt.stream:
            visits.observe(metrics.FIRST_TOKEN, self._first - self._begun, *self._asked)
            if usage is not None and usage.completion_tokens > 1:
                visits.observe(metrics.INTER_TOKEN, self._inter_token_s(usage), *self._asked)
        if usage is not None and end.caller is not None:
            tokens = usage.prompt_tokens - usage.cached_tokens + usage.completion_tokens
            visits.fairness.served(end.caller.organisation, tokens, end.caller.weight)

    def _inter_token_s(self, usage: Usage | None) -> float:
        """On the answer's average, as the promise means it."""
        return (perf_counter() - self._first) / max(1, usage.completion_tokens - 1) if usage is not None else 0.0

    def _kept(self, end: End, duration_s: float) -> bool | None:
        """Whether the promise was kept; ``None`` where nothing was promised, or the client would not wait for it."""
        promise = self._with.promises.get(end.service_class)
        if promise is None or end.outcome not in (Outcome.SERVED, Outcome.FAILED):
            return None
        if end.outcome is Outcome.FAILED or end.prompt is None:
            return False
        if end.prompt.stream:
            timely = self._first - self._begun <= promise.first_token_s
            return timely and self._inter_token_s(end.usage) <= promise.inter_token_s
        tokens = end.usage.completion_tokens if end.usage is not None else 1
        return duration_s <= promise.first_token_s + promise.inter_token_s * max(0, tokens - 1)

    def _tell(self, trace: Trace, end: End) -> None:
        operation, model, service_class = self._asked
        said: dict[str, Value] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": model,
            "http.route": self._endpoint.value,
            "domicile.request.id": self._request_id,
            "domicile.service_class": service_class,
            "domicile.outcome": end.outcome.value,
        }
        if end.prompt is not None:
            said["gen_ai.request.stream"] = end.prompt.stream
        if self._first:
            said["gen_ai.response.time_to_first_chunk"] = self._first - self._begun
        if end.usage is not None:
            said["gen_ai.usage.input_tokens"] = end.usage.prompt_tokens
            said["gen_ai.usage.output_tokens"] = end.usage.completion_tokens
            said["gen_ai.usage.cache_read.input_tokens"] = end.usage.cached_tokens
        trace.ended(f"{operation} {model}", said, end.fault)
