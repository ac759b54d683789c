"""The nouns of the batching core. Times are seconds of the driver's own clock, whatever it counts from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from serving.types import ServiceClass

BATCH_SHARE = 0.05
"""What a batch job's weight is worth beside others: enough not to starve, too little to disturb."""
MOST_TOKENS = 10**9
"""More than any prompt or answer has; a larger count is a mistake."""
PATIENCE = 8.0
"""A prompt whose prefill alone takes longer than was promised is due after so many times that: it is long, not late.
With less, whoever sends such prompts is turned away while the engine has time for them: one that is ahead of another is
most of what that one was promised."""
_WEIGHTS = (1e-6, 1e6)


class Reason(StrEnum):
    """Why a job is turned away."""

    OVER_SHARE = "over_share"
    """Its organisation's own backlog is in the way: the same job of another would be served (HTTP 429)."""
    OVERLOADED = "overloaded"
    """The engine is too busy for anybody's such job (HTTP 503)."""
    EXPIRED = "expired"
    """It came too late to be of use."""
    IMPOSSIBLE = "impossible"
    """Not even an idle engine could keep its promise, or it makes no sense."""


def due(arrived: float, first_token_s: float, alone_s: float) -> float:
    """When the first token of a job is: as promised, or later where its prefill takes ``alone_s`` by itself."""
    return arrived + max(first_token_s, PATIENCE * alone_s)


class Account(NamedTuple):
    """Whom the ledger charges: an organisation, its batch jobs apart since they must not slow down its others."""

    organisation: str
    batch: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A request as the policy sees it: sizes and promises, no text."""

    id: str
    organisation: str
    service_class: ServiceClass
    weight: float
    """Of the organisation's plan, above zero: twice the weight is twice the share."""
    prompt_tokens: int
    cached_tokens: int
    """Of these, how many the prefix cache is expected to hold."""
    answer_tokens: int
    """Expected or allowed length of one answer: the policy's own estimate never exceeds it."""
    arrived: float
    first_token_by: float = math.inf
    """When the first-token promise is missed."""
    deadline: float = math.inf
    """When the answer is pointless."""
    streams: int = 1
    """Answers to one prompt (``n`` of the API)."""

    @property
    def account(self) -> Account:
        return Account(self.organisation, self.service_class is ServiceClass.BATCH)

    @property
    def share(self) -> float:
        """The effective weight."""
        return self.weight * BATCH_SHARE if self.service_class is ServiceClass.BATCH else self.weight

    @property
    def prefill_tokens(self) -> int:
        """What a prefill has to compute: never nothing, since the last token of a prompt is always computed."""
        return max(1, self.prompt_tokens - max(0, self.cached_tokens))

    @property
    def start_by(self) -> float:
        """The sooner of both promises."""
        return min(self.first_token_by, self.deadline)

    def flaw(self) -> str | None:
        """What makes the job senseless; ``None`` for one that can be worked with."""
        if not _WEIGHTS[0] <= self.weight <= _WEIGHTS[1]:
            return "weight out of range"
        if not 0 <= self.prompt_tokens <= MOST_TOKENS or not 0 <= self.answer_tokens <= MOST_TOKENS:
            return "token count out of range"
        if self.cached_tokens != self.cached_tokens:
            return "cached tokens unknown"
        if not 1 <= self.streams <= MOST_TOKENS:
            return "number of streams out of range"
        if not math.isfinite(self.arrived) or math.isnan(self.first_token_by) or math.isnan(self.deadline):
            return "time is not a number"
        return None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A job turned away before it cost anything."""

    reason: Reason
    retry_after_s: float | None
    """When the same job, with its promises as long as now, would be let in if nothing else came. ``None``: never."""
    why: str
    """For logs and answers: holds nothing of the request's text."""


@dataclass(frozen=True, slots=True)
class Room:
    """What the engine can take. What it has is known to the policy from what it was told of jobs served.

    A limit is open or it is not, whatever the size of the job that then starts: were small jobs let past a large one
    that does not fit, it would starve.
    """

    slots: int
    """Free stream slots. The last one admits a job of several streams: the engine keeps the others in line."""
    prefill_tokens: int = MOST_TOKENS
    """While less than this is unfinished in the engine, any job may start its prefill."""
    prefills: int = 0
    """While fewer prefills than this are unfinished, an account that has none there may start one all the same."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What the engine needs for a token, as :meth:`serving.batching.steptime.StepTime.speed` knows it."""

    prefill_s: float
    """Engine time a prefill token costs."""
    answer_s: float
    """Engine time an answer token costs with every slot taken: a step of only decodes, divided by its streams."""
    slots: int
    """Streams that decode at once at most."""
    step_s: float = 0.0
    """The shortest step: no first token comes sooner."""
    slowdown: float = 1.0
    """Elapsed over engine time of a prefill beside what decodes at present, at least 1."""

    @property
    def usable(self) -> bool:
        figures = (self.prefill_s, self.answer_s, self.step_s, self.slowdown)
        return all(map(math.isfinite, figures)) and min(figures) >= 0 and self.slots >= 1 and self.slowdown >= 1
