"""What a replica needs of an engine, and what an engine needs to know about who is asking.

An engine speaks vLLM's OpenAI surface as an ASGI application. Who is asking never travels in the body, where a
client could write it: the replica checks the signed claim, sets :data:`current_claim`, and calls the
application in that context.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import time_ns
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from serving.types import Endpoint, ServiceClass, Usage

GENERATING = frozenset(endpoint.value for endpoint in Endpoint)
"""Paths that need a claim."""
METRICS = "/metrics"
"""Where an engine tells its state, in Prometheus' text format 1.0.0."""


class EngineDead(RuntimeError):
    """The engine can no longer serve. The replica that holds it must be replaced."""


class NoClaim(RuntimeError):
    """Somebody reached the engine without a claim. Nothing was generated."""


@dataclass(slots=True)
class Moments:
    """What one generation of a traced request came to, and when: nanoseconds since the epoch, 0 where it did not.

    Its engine writes it down as it happens, whoever traces reads it when the request has ended.
    """

    asked: int
    admitted: int = 0
    """It had its turn."""
    first: int = 0
    """Its first token came, where the engine shows it before the last."""
    ended: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ClaimFacts:
    """What an engine may know of a checked claim."""

    organisation: str
    request_id: str
    service_class: ServiceClass
    deadline: float
    """Unix seconds. Work that cannot start before it is not worth starting."""
    cache_salt: str
    """Separates the organisation's prefix cache from everybody else's (R9)."""
    weight: float = 1.0
    """The organisation's share of an engine that others want too, over theirs."""
    body_bytes: int = 0
    """Size of the request's body, 0 where it is not known."""
    moments: list[Moments] | None = None
    """Grows with each generation of a request that is traced; ``None`` for one that is not."""

    def watched(self) -> Moments | None:
        """Where to write down what a generation that begins now comes to; ``None`` where nobody wants to know."""
        if self.moments is None:
            return None
        self.moments.append(Moments(time_ns()))
        return self.moments[-1]


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine has on its plate at this moment."""

    running: int
    waiting: int
    outstanding_tokens: int
    """Prompt tokens not yet prefilled plus answer tokens not yet generated, over running and waiting requests."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What never changes while an engine runs."""

    model: str
    context_length: int
    vocab_size: int


current_claim: ContextVar[ClaimFacts | None] = ContextVar("current_claim", default=None)
"""Who is asking, for the ASGI call in whose context it is set."""


def require_claim() -> ClaimFacts:
    """The current claim. Raises :class:`NoClaim` where there is none."""
    claim = current_claim.get()
    if claim is None:
        raise NoClaim("generation was asked for without a claim")
    return claim


@contextmanager
def claimed(claim: ClaimFacts) -> Iterator[None]:
    """Run the block, and every task started in it, on behalf of ``claim``."""
    token = current_claim.set(claim)
    try:
        yield
    finally:
        current_claim.reset(token)


def guarded(app: ASGIApp) -> ASGIApp:
    """``app``, whose generating paths raise :class:`NoClaim` before they read a body that nobody vouches for."""

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in GENERATING:
            require_claim()
        await app(scope, receive, send)

    return guard


class Engine(Protocol):
    """A language model behind vLLM's OpenAI surface."""

    @property
    def app(self) -> ASGIApp:
        """``/v1/{chat/completions,completions,responses,models}``, ``/tokenize``, ``/health`` and ``/metrics``.

        Generating paths raise :class:`NoClaim` unless :data:`current_claim` is set, and salt the prefix cache
        with its ``cache_salt``. Usable between :meth:`start` and :meth:`stop`.

        :data:`METRICS` has at least vLLM's gauges ``vllm:num_requests_running``, ``vllm:num_requests_waiting`` and
        ``vllm:kv_cache_usage_perc`` (0 to 1), its counters ``vllm:prompt_tokens_total`` and
        ``vllm:generation_tokens_total``, its histogram ``vllm:request_queue_time_seconds``, all labelled
        ``model_name`` and ``engine``, and the gauge ``domicile:outstanding_tokens`` of :class:`Load`. Nothing there
        comes from a caller: neither a word nor a name (R7).
        """

    async def start(self) -> None:
        """Return when the engine is ready to generate."""

    async def stop(self) -> None:
        """Abort what is in flight and release everything. Harmless when already stopped."""

    async def check(self) -> None:
        """Raise :class:`EngineDead` when the engine can no longer serve."""

    def load(self) -> Load: ...

    def spent(self, request_id: str) -> Usage | None:
        """What a request cost so far, or did; ``None`` for one that is not among the newest. See ``spending.py``."""

    def facts(self) -> EngineFacts: ...
