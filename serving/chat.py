"""A request's life, top to bottom. Each line is a step, each step is a file in ``steps/``.

A step that refuses raises, and what was taken by the steps before it is given back on the way out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Protocol

from serving.records.telemetry.trace import span
from serving.replicas.continuation import Told
from serving.replicas.errand import Errand
from serving.steps import record
from serving.steps.account import accounted
from serving.steps.authenticate import Authenticator
from serving.steps.record import Entry, Recording
from serving.steps.relay import Relay
from serving.steps.residency import Residency, Site
from serving.steps.resume import Resume
from serving.types import Prompt


class Asked(record.Asked, Protocol):
    """A request as it stands at the door: headers read, body not yet."""

    @property
    def headers(self) -> Mapping[bytes, bytes]: ...

    async def prompt(self, site: Site) -> Prompt:
        """Read and validate the body. Raises :class:`~serving.errors.Refused`."""


@dataclass(frozen=True, slots=True)
class House:
    """What the steps of one country need to do their work."""

    record: Recording
    authenticate: Authenticator
    residency: Residency
    relay: Relay
    resume: Resume


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer about to flow: the engine's own bytes, whatever size they come in."""

    prompt: Prompt
    stream: AsyncGenerator[bytes, None]
    resume: Callable[[Told], AsyncGenerator[bytes, None]]
    """What follows on the events that were told, where the stream was lost. Whoever asks for it closes it."""
    entry: Entry
    """Its page in the country's records, for whoever sends it to say how it went."""


@asynccontextmanager
async def answer(asked: Asked, house: House) -> AsyncIterator[Answer]:
    """
    Raises:
        Refused: before anything was generated, and up to the first bytes of the stream.
        Failed: likewise, and also in the middle of the stream.
    """
    with house.record(asked) as entry:
        with span("authenticate"):
            caller = entry.called(house.authenticate(asked.headers))
        with span("residency"):
            site = house.residency.site_for(caller, asked.headers)
        with span("read"):
            prompt = await asked.prompt(site)
        site.grant(prompt)
        ends = monotonic() + site.country.slo.request_s
        errand = entry.sent(Errand(caller, accounted(prompt), asked.id, ends))
        async with aclosing(house.relay(errand)) as stream:
            yield Answer(prompt, stream, partial(house.resume, errand), entry)
