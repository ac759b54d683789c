"""Carry an answer on, at another replica of the country, where its own was lost in the middle of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
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
from serving.replicas.errand import Errand
from serving.replicas.upstream import Rejected


class Carrier(Protocol):
    """What asks replicas: :class:`serving.steps.relay.Relay`."""

    def __call__(self, errand: Errand) -> AsyncGenerator[bytes, None]: ...

    async def tokens(self, errand: Errand, asked: bytes) -> int: ...


class Resume:
    """Finds the rest of an answer. Asks whom a new request would ask, so never another country (R5)."""

    def __init__(self, relay: Carrier, country: str) -> None:
        self._relay = relay
        self._country = country

    async def __call__(self, errand: Errand, told: Told) -> AsyncGenerator[bytes, None]:
        """What follows on the events in ``told``, as whole events of the same stream.

        Raises:
            Failed: the answer cannot be carried on, or nobody is there who could.
        """
        prompt = errand.prompt
        begun = beginning(told.events) if told.whole else None
        if begun is None:
            raise self._interrupted()
        try:
            spent = await self._relay.tokens(errand, text_to_count(prompt, begun)) if counts(prompt, begun) else 0
            asked = await self._relay.tokens(errand, prompt_to_count(prompt)) if prompt.include_usage else 0
            if is_spent(prompt, begun, spent):
                yield ending(prompt, begun, asked, spent)
                return
            mend = Rest(begun, asked, spent)
            rest = replace(errand, prompt=continued(prompt, begun, spent))
            async with aclosing(self._relay(rest)) as stream:
                async for data in stream:
                    if events := mend.feed(data):
                        yield events
        except Rejected as rejected:
            raise self._interrupted() from rejected

    def _interrupted(self) -> Failed:
        return Failed(Reason.STREAM_INTERRUPTED, country=self._country.upper())
