"""How an engine that will not take a request says so: before the first byte of an answer, and with when to come back.

vLLM's application begins a streamed answer with status 200 before it asks its engine to generate. Whoever is turned
away then would get an error inside a stream that looked good, and a gateway could not ask another replica instead. So
the head of every answer is held until its first bytes, and is never sent where the engine turned the request away.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

OVER_SHARE = 429
OVERLOADED = 503


@dataclass(frozen=True, slots=True)
class Turnaway:
    """Nothing was generated, and nothing will be."""

    status: int
    """:data:`OVER_SHARE`: the organisation's own backlog is why. :data:`OVERLOADED`: everybody's is."""
    reason: str
    """A word for the country's own records, such as ``over_share``. Nothing of the request is in it (R7)."""
    retry_after_s: float
    """When the same request would be taken, if nothing else came meanwhile; a guess where this engine never would."""

    def body(self) -> bytes:
        error = {
            "message": f"turned away: {self.reason}",
            "type": "turned_away",
            "param": None,
            "code": self.status,
            "reason": self.reason,
            "retry_after_s": self.retry_after_s,
        }
        return json.dumps({"error": error}).encode()


class TurnedAway(Exception):
    """Raised where a request would have been generated, after :func:`turn_away` noted why."""


@dataclass(slots=True)
class _Slot:
    turnaway: Turnaway | None = None


_slot: ContextVar[_Slot | None] = ContextVar("turnaway", default=None)


def turn_away(turnaway: Turnaway) -> None:
    """Have the current ASGI call answered with ``turnaway``, provided nothing of its answer was sent yet."""
    slot = _slot.get()
    if slot is not None:
        slot.turnaway = turnaway


def heeding(app: ASGIApp) -> ASGIApp:
    """``app``, whose answer to a request that was turned away is the :class:`Turnaway` and nothing else."""

    async def heeded(scope: Scope, receive: Receive, send: Send) -> None:
        slot = _Slot()
        token = _slot.set(slot)
        answer = _Answer(slot, send)
        try:
            await app(scope, receive, answer)
        finally:
            _slot.reset(token)

    return heeded


def foreseeing(app: ASGIApp, foreseen: Callable[[Scope], AbstractContextManager[Turnaway | None]]) -> ASGIApp:
    """``app``, which is not asked where it is ``foreseen`` that it would turn the request away."""

    async def foreseeing_app(scope: Scope, receive: Receive, send: Send) -> None:
        with foreseen(scope) as turnaway:
            if turnaway is None:
                await app(scope, receive, send)
                return
        # The body is on its way, and the connection will be used again.
        while (await receive()).get("more_body"):
            pass
        await refuse(turnaway, send)

    return foreseeing_app


async def refuse(turnaway: Turnaway, send: Send) -> None:
    """Answer with a turnaway."""
    body = turnaway.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": turnaway.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Answer:
    """Holds the head until the first bytes of the body; replaces both where the slot says so."""

    def __init__(self, slot: _Slot, send: Send) -> None:
        self._slot = slot
        self._send = send
        self._head: Message | None = None
        self._begun = False
        self._replaced = False

    async def __call__(self, message: Message) -> None:
        if self._replaced:
            return
        if self._begun:
            await self._send(message)
        elif message["type"] == "http.response.start":
            self._head = message
        elif self._slot.turnaway is not None:
            self._replaced = True
            await refuse(self._slot.turnaway, self._send)
        else:
            self._begun = True
            if self._head is not None:
                await self._send(self._head)
            await self._send(message)


def read(status: int, body: bytes) -> Turnaway | None:
    """The turnaway in a replica's answer; ``None`` where it is another kind of answer."""
    if status not in (OVER_SHARE, OVERLOADED):
        return None
    try:
        error = json.loads(body)["error"]
        return Turnaway(status, str(error["reason"]), float(error["retry_after_s"]))
    except (KeyError, TypeError, ValueError):
        return None
