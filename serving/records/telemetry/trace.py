"""One request's trace: spans over gateway and replica, told as a whole when each has ended.

Whether a request is traced is decided once, at the door, by our own dice: what a caller sends as ``traceparent`` is
neither read nor passed on, since it would be a caller's value in our records, and a switch in a caller's hand. The
context crosses to the replica inside the signed claim (W3C Trace Context, level 1, section 3.2.2).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import time_ns
from types import TracebackType
from typing import Self

from serving.errors import DomicileError, Reason
from serving.records.telemetry.schema import Value

NOTHING: Mapping[str, Value] = {}
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01")


@dataclass(frozen=True, slots=True)
class Ended:
    """A span that has ended. Times are nanoseconds since the epoch."""

    trace: str
    id: str
    parent: str
    name: str
    begun: int
    ended: int
    serves: bool = False
    """Whether it answers somebody else's request (OpenTelemetry's kind SERVER), or else asks one of somebody."""
    asks: bool = False
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""
    """Why it failed, of :data:`serving.records.telemetry.faults.ALL`."""


@dataclass(frozen=True, slots=True)
class Context:
    """Where a trace is carried on: by the one who got it inside a claim."""

    trace: str
    parent: str

    @classmethod
    def read(cls, traceparent: str) -> Context | None:
        """``None`` for a request that is not traced, or for no such context."""
        found = _TRACEPARENT.fullmatch(traceparent)
        return cls(found[1], found[2]) if found else None


class Trace:
    """A traced request at the process where it is now. ``tell`` hears of each span as it ends."""

    __slots__ = ("_tell", "id", "parent", "span")

    def __init__(self, tell: Callable[[Ended], None], context: Context | None = None) -> None:
        self._tell = tell
        self.id = context.trace if context else f"{_some_bits(128):032x}"
        self.parent = context.parent if context else ""
        self.span = f"{_some_bits(64):016x}"
        """The span that is over all others here."""

    def told(
        self, name: str, begun: int, ended: int, attributes: Mapping[str, Value] = NOTHING, error: str = ""
    ) -> None:
        """A span below ours, of which all is known."""
        self._tell(
            Ended(self.id, f"{_some_bits(64):016x}", self.span, name, begun, ended, attributes=attributes, error=error)
        )

    def ended(self, name: str, begun: int, attributes: Mapping[str, Value], error: str = "") -> None:
        """Our span itself."""
        self._tell(
            Ended(
                self.id, self.span, self.parent, name, begun, time_ns(), serves=True, attributes=attributes, error=error
            )
        )


class Attempt:
    """A replica is being asked. What it adds to the trace stands below this span."""

    __slots__ = ("_begun", "_number", "_span", "_trace")

    def __init__(self, number: int) -> None:
        self._trace = current.get()
        self._number = number
        self._span = f"{_some_bits(64):016x}" if self._trace else ""
        self._begun = time_ns() if self._trace else 0

    @property
    def traceparent(self) -> str:
        """For the claim; empty where the request is not traced."""
        return f"00-{self._trace.id}-{self._span}-01" if self._trace else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        trace = self._trace
        if trace is not None:
            why = _fault(error)
            said: dict[str, Value] = {"domicile.attempt": self._number}
            trace._tell(
                Ended(
                    trace.id,
                    self._span,
                    trace.span,
                    "attempt",
                    self._begun,
                    time_ns(),
                    asks=True,
                    attributes=said,
                    error=why,
                )
            )


class span:  # noqa: N801 - read as a statement: with span("authenticate")
    """Times a block, where the request is traced."""

    __slots__ = ("_begun", "_name", "_trace")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._trace = current.get()
        if self._trace is not None:
            self._begun = time_ns()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._trace is not None:
            self._trace.told(self._name, self._begun, time_ns(), error=_fault(error))


current: ContextVar[Trace | None] = ContextVar("trace", default=None)
"""The request that this task works for, where it is traced."""


def _some_bits(count: int) -> int:
    """Never all zero, which would be no id."""
    return random.getrandbits(count) or 1


def _fault(error: BaseException | None) -> str:
    if not isinstance(error, Exception):
        # Who leaves early, or is cancelled for somebody who left, has failed at nothing.
        return ""
    if isinstance(error, DomicileError):
        return error.reason.key
    return str(getattr(error, "fault", "")) or Reason.INTERNAL_ERROR.key
