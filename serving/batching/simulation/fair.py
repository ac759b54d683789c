"""An engine whose steps are planned as the scheduler plug-in does, :mod:`serving.batching.scheduler`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import TypeVar

from serving.batching.board import Reading
from serving.batching.jobs import Account
from serving.batching.ledger import Ledger, virtual_tokens
from serving.batching.simulation.engine import Engine
from serving.batching.simulation.requests import Request
from serving.batching.simulation.scenario import EngineSize, StepTiming
from serving.batching.step import COMPANY_S, Behind, Limits, Prefill, bearable_s, plan
from serving.batching.steptime import PROFILE_ANSWER, PROFILE_PROMPTS, PROFILE_STREAMS, Step, StepTime

Thing = TypeVar("Thing")


class FairEngine(Engine):
    """Decodes first, prefill in fair order, as much of it as the step's time allows."""

    def __init__(self, timing: StepTiming, size: EngineSize, rng: Random, *, step_s: float, learns: bool) -> None:
        """
        Args:
            step_s: the longest step that keeps the strictest promise of those who do not wait.
            learns: whether the step-time model is fitted to the steps, or is the truth.
        """
        super().__init__(timing, size, rng)
        self.model = StepTime() if learns else self._truth
        self.crowded = False
        """Whether somebody waits before the engine, as the pacer tells it."""
        self._learns = learns
        self._ledger = Ledger()
        self._behind = Behind()
        self._limits = Limits(tokens=size.max_num_batched_tokens, step_s=step_s)
        self._prefilling: Counter[Account] = Counter()
        self._streams: Counter[tuple[Account, float]] = Counter()
        self._present: Counter[Account] = Counter()
        self._seen: dict[Account, float] = {}
        if learns:
            self.longest_stretch = 1
            self._profile()

    def reading(self) -> Reading:
        """What the scheduler tells the pacer after a step."""
        known = self.model.coefficients
        return Reading(
            fixed_s=known.fixed_s,
            prefill_token_s=known.prefill_token_s,
            decode_stream_s=known.decode_stream_s,
            context_token_s=known.context_token_s,
            observations=self.model.observations if self._learns else 1,
            decoding=self.last.decode_streams,
            context_tokens=self.last.context_tokens,
        )

    def begin(self, now: float) -> None:
        if not self.begun and not self.waiting:
            self._behind.step(now, prefills=0)
        super().begin(now)

    def add(self, request: Request, now: float) -> None:
        super().add(request, now)
        account = request.account
        if not self._prefilling[account]:
            self._ledger.enter(account)
        self._prefilling[account] += 1
        self._present[account] += 1

    def finish(self, now: float) -> tuple[list[Request], list[Request]]:
        # From here on it is measured, as the scheduler measures it.
        if self._learns:
            self.model.observe(self._step, self._step_s - self._timing.between_s)
        for account in self._present:
            self._seen[account] = now
        return super().finish(now)

    def _planned(self, now: float) -> list[tuple[Request, int]]:
        begun = [_prefill(one, admitted=True) for one in self.begun]
        waiting = [_prefill(one, admitted=False) for one in self.waiting]
        patient = self._patient(now)
        more = self._behind.step(now, prefills=len(self.begun) + len(self.waiting)) or self.crowded
        planned = plan(
            begun + waiting,
            self._ledger.counter,
            now=now,
            decode_streams=len(self.decoding),
            decode_tokens=len(self.decoding),
            context_tokens=self.context,
            promised_s=min([_allowed(one, now) for one in self.decoding], default=math.inf),
            company=len(self._seen.keys() | self._present.keys()) > 1 and not patient,
            crowded=more or patient,
            model=self.model,
            limits=self._limits,
        )
        by_id = {one.id: one for one in (*self.begun, *self.waiting)}
        order = [by_id[name] for name in planned.order]
        return self._fill(order, planned.tokens - len(self.decoding), planned.held)

    def _patient(self, now: float) -> bool:
        """Whether everybody who was about lately said that they can wait."""
        for account in [name for name, at in self._seen.items() if now - at > COMPANY_S and name not in self._present]:
            del self._seen[account]
        return all(account.batch for account in self._seen.keys() | self._present.keys())

    def _prefill(self, one: Request, tokens: int, now: float) -> bool:
        done = super()._prefill(one, tokens, now)
        if done:
            self._streams[one.account, one.share] += 1
            self._prefill_left(one.account)
        return done

    def _left(self, request: Request) -> None:
        account = request.account
        if request.prefill_left:
            self._prefill_left(account)
        else:
            _less(self._streams, (account, request.share))
        _less(self._present, account)

    def _prefill_left(self, account: Account) -> None:
        _less(self._prefilling, account)
        if account not in self._prefilling:
            self._ledger.leave(account)

    def _worked(self, chunks: Iterable[tuple[Request, int]], steps: int) -> None:
        for one, tokens in chunks:
            self._ledger.charge(one.account, virtual_tokens(tokens, 0, one.share))
        if steps:
            for (account, share), streams in self._streams.items():
                self._ledger.charge(account, virtual_tokens(0, steps * streams, share))

    def _profile(self) -> None:
        for tokens in PROFILE_PROMPTS:
            self._observe(Step(tokens, 0, 0))
        for streams in PROFILE_STREAMS:
            for answered in range(PROFILE_ANSWER - 1):
                self._observe(Step(0, streams, streams * (PROFILE_PROMPTS[0] + answered)))

    def _observe(self, step: Step) -> None:
        self.model.observe(step, self._truth.predict(step) * self._noise())


def _allowed(one: Request, now: float) -> float:
    return bearable_s(one.step_s, one.answered - one.began_at, now - one.began)


def _prefill(one: Request, *, admitted: bool) -> Prefill:
    return Prefill(
        one.id, one.account, one.prefill_left, one.first_token_by, admitted, one.prompt_tokens - one.prefill_left
    )


def _less(counter: Counter[Thing], thing: Thing) -> None:
    """One less of it; what there is none of is not kept."""
    counter[thing] -= 1
    if not counter[thing]:
        del counter[thing]
