"""One request's trace: spans over gateway and replica.

Whether a request is traced is decided once, at the door, by our own dice: what a caller sends as ``traceparent`` is
neither read nor passed on, since it would be a caller's value in our records, and a switch in a caller's hand. The
context crosses to the replica inside the signed claim (W3C Trace Context, level 1, section 3.2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.errors import DomicileError, Reason
from serving.records.telemetry.schema import Schema, Value
from serving.records.telemetry.schema import Span as Name

NOTHING: Mapping[str, Value] = {}
NOWHERE = set_span_in_context(INVALID_SPAN, Context())
"""Below no span, whatever another library has made the current one."""
_W3C = TraceContextTextMapPropagator()
_TRACEPARENT = "traceparent"


def carried(traceparent: str) -> Context | None:
    """Where a trace is carried on, by the one who got it inside a claim. ``None`` for a request that is not traced."""
    context = _W3C.extract({_TRACEPARENT: traceparent}, NOWHERE)
    above = get_current_span(context).get_span_context()
    return context if above.is_valid and above.trace_flags.sampled else None


class Trace:
    """A traced request at the process where it is now: a span that is over all others here."""

    __slots__ = ("_context", "_schema", "_span", "_tracer")

    def __init__(self, tracer: Tracer, schema: Schema, context: Context = NOWHERE) -> None:
        self._tracer = tracer
        self._schema = schema
        # Its name is known when it is known what was asked.
        self._span = tracer.start_span("", context, SpanKind.SERVER)
        self._context = set_span_in_context(self._span, NOWHERE)

    def begin(self, name: Name, kind: SpanKind = SpanKind.INTERNAL, begun: int | None = None) -> Span:
        """A span below ours, which :meth:`end` ends. Times are nanoseconds since the epoch, or else now."""
        if not self._schema.names(name):
            return INVALID_SPAN
        return self._tracer.start_span(name, self._context, kind, start_time=begun)

    def end(
        self,
        span: Span,
        attributes: Mapping[str, Value] = NOTHING,
        error: str = "",
        ended: int | None = None,
    ) -> None:
        """
        Args:
            attributes: what is said of it, as far as the schema describes it.
            error: why it failed, of :data:`serving.records.telemetry.faults.ALL`.
        """
        said = self._schema.kept(attributes)
        if error:
            said["error.type"] = error if self._schema.allows("error.type", error) else Reason.INTERNAL_ERROR.key
            span.set_status(StatusCode.ERROR)
        span.set_attributes(said)
        span.end(ended)

    def told(
        self, name: Name, begun: int, ended: int, attributes: Mapping[str, Value] = NOTHING, error: str = ""
    ) -> None:
        """A span below ours, of which all is known."""
        self.end(self.begin(name, begun=begun), attributes, error, ended)

    def ended(self, name: str, attributes: Mapping[str, Value], error: str = "") -> None:
        """Our span itself. Where there is no such name it is told to nobody, since it never ends."""
        if self._schema.names(name):
            self._span.update_name(name)
            self.end(self._span, attributes, error)


class Attempt:
    """A replica is being asked. What it adds to the trace stands below this span."""

    __slots__ = ("_number", "_span", "_trace")

    def __init__(self, number: int) -> None:
        self._trace = current.get()
        self._number = number
        self._span = self._trace.begin(Name.ATTEMPT, SpanKind.CLIENT) if self._trace else INVALID_SPAN

    @property
    def traceparent(self) -> str:
        """For the claim; empty where the request is not traced."""
        found: dict[str, str] = {}
        if self._trace is not None:
            _W3C.inject(found, set_span_in_context(self._span, NOWHERE))
        return found.get(_TRACEPARENT, "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._trace is not None:
            self._trace.end(self._span, {"domicile.attempt": self._number}, _fault(error))


class span:  # noqa: N801 - read as a statement: with span(Span.READ)
    """Times a block, where the request is traced."""

    __slots__ = ("_name", "_span", "_trace")

    def __init__(self, name: Name) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._trace = current.get()
        if self._trace is not None:
            self._span = self._trace.begin(self._name)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._trace is not None:
            self._trace.end(self._span, error=_fault(error))


current: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The request that this task works for, where it is traced."""


def _fault(error: BaseException | None) -> str:
    if not isinstance(error, Exception):
        # Who leaves early, or is cancelled for somebody who left, has failed at nothing.
        return ""
    if isinstance(error, DomicileError):
        return error.reason.key
    return str(getattr(error, "fault", "")) or Reason.INTERNAL_ERROR.key
