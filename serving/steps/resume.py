"""Carry an answer on, at another replica of the country, where its own was lost in the middle of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Set
from contextlib import aclosing
from functools import partial
from typing import Protocol

from serving.errors import Failed, Reason
from serving.replicas.continuation import (
    Rest,
    Told,
    beginning,
    continued,
    counts,
    ending,
    is_spent,
    prompt_to_count,
    text_to_count,
)
from serving.replicas.upstream import Rejected
from serving.types import Caller, Prompt


class Carrier(Protocol):
    """What asks replicas: :class:`serving.steps.relay.Relay`."""

    def __call__(
        self, caller: Caller, prompt: Prompt, request_id: str, tried: set[str]
    ) -> AsyncGenerator[bytes, None]: ...

    async def tokens(self, caller: Caller, prompt: Prompt, request_id: str, tried: Set[str], asked: bytes) -> int: ...


class Resume:
    """Finds the rest of an answer. Asks whom a new request would ask, so never another country (R5)."""

    def __init__(self, relay: Carrier, country: str) -> None:
        self._relay = relay
        self._country = country

    async def __call__(
        self, caller: Caller, prompt: Prompt, request_id: str, tried: set[str], told: Told
    ) -> AsyncGenerator[bytes, None]:
        """What follows on the events in ``told``, as whole events of the same stream.

        Raises:
            Failed: the answer cannot be carried on, or nobody is there who could.
        """
        begun = beginning(told.events) if told.whole else None
        if begun is None:
            raise self._interrupted()
        try:
            count = partial(self._relay.tokens, caller, prompt, request_id, tried)
            spent = await count(text_to_count(prompt, begun)) if begun.text and counts(prompt) else 0
            asked = await count(prompt_to_count(prompt)) if prompt.include_usage else 0
            if is_spent(prompt, begun, spent):
                yield ending(prompt, begun, asked, spent)
                return
            mend = Rest(begun, asked, spent)
            async with aclosing(self._relay(caller, continued(prompt, begun, spent), request_id, tried)) as stream:
                async for data in stream:
                    if events := mend.feed(data):
                        yield events
        except Rejected as rejected:
            raise self._interrupted() from rejected

    def _interrupted(self) -> Failed:
        return Failed(Reason.STREAM_INTERRUPTED, country=self._country.upper())
