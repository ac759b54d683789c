"""An engine in virtual time that a policy drives: one step after the other, as long as the coefficients say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from serving.batching.jobs import Account, Job, Refusal, Room, Speed
from serving.batching.policy import Policy
from serving.batching.steptime import Coefficients, Step, StepTime
from serving.types import ServiceClass

TRUTH = Coefficients(fixed_s=0.02, prefill_token_s=1e-3, decode_stream_s=2e-3, context_token_s=0.0)
SLOTS = 8
WITHIN_S = 0.12
BUDGET = 2048
SPEED = StepTime.of(TRUTH).speed(SLOTS, 0)


def job(id: str, organisation: str = "a", **fields: object) -> Job:
    """A job of which only what matters is named."""
    plain = Job(
        id,
        organisation,
        ServiceClass.INTERACTIVE,
        weight=1.0,
        prompt_tokens=100,
        cached_tokens=0,
        answer_tokens=50,
        arrived=0.0,
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


def policy(slots: int = SLOTS, **fields: float) -> Policy:
    return Policy(replace(SPEED, slots=slots), **fields)  # type: ignore[arg-type]


@dataclass(slots=True)
class Served:
    """A job in the engine."""

    job: Job
    prefill_left: int
    answer_left: int


@dataclass
class Engine:
    """Slots, prefill in the ledger's order, decodes first. Answers are as long as ``length`` says."""

    policy: Policy
    slots: int = SLOTS
    room: Callable[[int], Room] = Room
    length: Callable[[Job], int] = lambda one: one.answer_tokens
    now: float = 0.0
    running: dict[str, Served] = field(default_factory=dict)
    first_token: dict[str, float] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)
    expired: list[Job] = field(default_factory=list)
    started: list[Job] = field(default_factory=list)
    finished: list[Job] = field(default_factory=list)
    received: dict[Account, list[tuple[float, float]]] = field(default_factory=dict)
    """By account: what it was served up to when, in the ledger's virtual tokens."""
    model: StepTime = field(default_factory=lambda: StepTime.of(TRUTH))
    tells_chunks: bool = True
    """Or of a prompt's prefill only with its first token, as who reads an engine's answers does."""

    def offer(self, one: Job) -> Refusal | None:
        refusal = self.policy.offer(one, self.now)
        if refusal:
            self.refused[one.id] = refusal
        return refusal

    def start(self, one: Job) -> None:
        """What the policy handed out begins."""
        self.started.append(one)
        self.running[one.id] = Served(one, one.prefill_tokens, max(1, self.length(one)) * one.streams)

    def step(self) -> None:
        """One engine step, or a short wait where there is nothing to do."""
        self.expired += self.policy.expire(self.now)
        while one := self.policy.next(self.now, self.room(self.slots - self._streams())):
            self.start(one)
        decodes = [each for each in self.running.values() if not each.prefill_left]
        streams = sum(each.job.streams for each in decodes)
        chunks = list(self._chunks(streams))
        prefill = sum(tokens for _, tokens in chunks)
        self.now += self.model.predict(Step(prefill, streams, 0)) if streams or prefill else 0.01
        self.policy.speed = self._speed(streams)
        for each, tokens in chunks:
            each.prefill_left -= tokens
            self._serve(each, tokens, 0 if each.prefill_left else min(each.job.streams, each.answer_left))
        for each in decodes:
            self._serve(each, 0, min(each.job.streams, each.answer_left))

    def until(self, time: float) -> None:
        while self.now < time:
            self.step()

    def drain(self) -> None:
        while self.policy.waiting or self.running:
            self.step()

    def _chunks(self, streams: int) -> Iterator[tuple[Served, int]]:
        left = self.model.chunk(WITHIN_S, streams, 0, at_most=BUDGET, at_least=16) if streams else BUDGET
        prefills = [each for each in self.running.values() if each.prefill_left]
        for each in self.policy.ledger.order(prefills, lambda one: one.job.account):
            if tokens := min(left, each.prefill_left):
                left -= tokens
                yield each, tokens

    def _serve(self, each: Served, prefill: int, answer: int) -> None:
        one = each.job
        told = prefill if self.tells_chunks else one.prefill_tokens * (answer > 0 and one.id not in self.first_token)
        if answer:
            self.first_token.setdefault(one.id, self.now)
        each.answer_left -= answer
        self.policy.served(one.id, told, answer)
        history = self.received.setdefault(one.account, [(0.0, 0.0)])
        history.append((self.now, history[-1][1] + (prefill + 2 * answer) / one.share))
        if not each.answer_left:
            del self.running[one.id]
            self.policy.finished(one.id)
            self.finished.append(one)

    def _streams(self) -> int:
        return sum(each.job.streams for each in self.running.values())

    def _speed(self, streams: int) -> Speed:
        return self.model.speed(self.slots, 0, decode_streams=streams, within_s=WITHIN_S)

    def got(self, account: Account, time: float = math.inf) -> float:
        """What an account was served up to a time."""
        return next((sum_ for at, sum_ in reversed(self.received.get(account, [])) if at <= time), 0.0)
