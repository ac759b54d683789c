"""A traced request at its replica: its wait, prefill and decode as spans of the trace that began at the gateway."""

from __future__ import annotations

from time import time_ns

from starlette.types import Message, Send

from serving.engine.port import Moments
from serving.records.telemetry.faults import fault_of
from serving.records.telemetry.schema import PROVIDER, Span, Value
from serving.records.telemetry.trace import Trace


class Carried:
    """What becomes of it here: :attr:`moments` is for the engine, :meth:`noting` for the answer's status."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._status = 0
        self.moments: list[Moments] = []

    def noting(self, send: Send) -> Send:
        """``send``, with an eye on the status."""

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
            await send(message)

        return noted

    def end(self) -> None:
        error = fault_of(self._status or 500)
        for one in self.moments:
            self._told(one, error)
        said: dict[str, Value] = {"gen_ai.provider.name": PROVIDER}
        if self._status:
            said["http.response.status_code"] = self._status
        self._trace.ended(Span.REPLICA, said, error)

    def _told(self, one: Moments, error: str) -> None:
        tell, now = self._trace.told, time_ns()
        if not one.admitted:
            tell(Span.QUEUE, one.asked, now, error=error)
            return
        tell(Span.QUEUE, one.asked, one.admitted)
        ended = one.ended or now
        asked: dict[str, Value] = {
            "gen_ai.usage.input_tokens": one.prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": one.cached_tokens,
        }
        answered: dict[str, Value] = {"gen_ai.usage.output_tokens": one.answer_tokens}
        if one.first:
            tell(Span.PREFILL, one.admitted, one.first, asked)
            tell(Span.DECODE, one.first, ended, answered, error)
        else:
            tell(Span.GENERATE, one.admitted, ended, {**asked, **answered}, error)
