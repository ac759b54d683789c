"""vLLM's engine with the batching core before it: what a request is to the policy, and what the scheduler is told."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from uuid import uuid4

from serving.batching.backlog import Work
from serving.batching.board import Board, Reading
from serving.batching.capacity import Bounds, Capacity, capacity
from serving.batching.jobs import Job, Reason, Refusal, due
from serving.batching.lengths import EXPECTED_AT_MOST, PRIOR_DENSITY, PRIOR_TOKENS, Means
from serving.batching.orders import Orders, Told
from serving.batching.pacer import Pacer, Refused, Turn
from serving.batching.policy import Policy
from serving.batching.prefixes import Prefixes
from serving.engine.arguments import inter_token_s
from serving.engine.port import ClaimFacts
from serving.engine.turnaway import OVER_SHARE, OVERLOADED, Turnaway, TurnedAway, turn_away
from serving.types import ServiceClass
from tenants.country import Slo

NO_HURRY_S = 3.0
"""After which a request is asked again that no idle engine could serve as promised: others are faster, or later."""
SURELY = 0.8
"""Of the prompt tokens that a body of its size holds as a rule, with how many a request is judged before it is read."""
FORESEEN_AT_MOST = 256.0
"""A picture is many bytes and few tokens: nobody is taken to send more than this, or than its prompts usually have."""
STALE_S = 0.005
"""How long a reading of the engine is good for: as long as a short step takes."""


class Core:
    """The batching core of one engine, on the side of the one who asks it."""

    def __init__(self, slo: Slo, *, max_streams: int, cache_tokens: int, cache_block: int, board: Board) -> None:
        """
        Args:
            max_streams: what the engine decodes at once at most.
            cache_tokens: room of its prefix cache; 0 where it has none.
            cache_block: tokens of a block of it.
            board: where its scheduler tells how it is.
        """
        self._promises = {one: slo.promise(one) for one in ServiceClass}
        self._bounds = Bounds(max_streams, Orders.keeping(inter_token_s(slo)).step_s)
        self._patient = Orders.keeping(self._promises[ServiceClass.BATCH].inter_token_s).step_s
        self._pressing = 0
        self._board = board
        self._prefixes = Prefixes(cache_tokens, cache_block)
        self._densities = Means(PRIOR_DENSITY)
        self._prompts = Means(FORESEEN_AT_MOST)
        self._answers = Means(PRIOR_TOKENS)
        self._coming: dict[str, Job] = {}
        """Those that were not turned away yet and have not asked for their turn, by their claim's request."""
        self._serial = count()
        self._known = (0.0, capacity(Reading(), self._bounds))
        self._pacer = Pacer(Policy(self._known[1].speed), self.capacity, tell_crowd=board.tell_crowd)

    @property
    def waiting(self) -> int:
        """Requests that are not in the engine yet."""
        return self._pacer.waiting

    @property
    def refusals(self) -> Mapping[Reason, int]:
        """How many requests were, by reason."""
        return self._pacer.turned_away

    def reading(self, figure: str) -> float:
        """One figure of what the engine's scheduler told last; see :class:`serving.batching.board.Reading`."""
        return float(getattr(self._board.read(), figure))

    def capacity(self) -> Capacity:
        """What the engine can do, as of a moment ago."""
        at, known = self._known
        now = time.monotonic()
        if now - at > STALE_S:
            step_s = self._bounds.step_s if self._pressing else max(self._patient, self._bounds.step_s)
            known = capacity(self._board.read(), replace(self._bounds, step_s=step_s))
            self._known = now, known
        return known

    def job(self, claim: ClaimFacts, prompt: Sequence[int], answer_tokens: int, streams: int) -> Job:
        """A request as the policy sees it."""
        cached = self._prefixes.cached(claim.cache_salt, prompt)
        self._answers.learn(claim.organisation, min(answer_tokens, EXPECTED_AT_MOST))
        if claim.body_bytes:
            self._densities.learn(claim.organisation, 1000 * (len(prompt) - cached) / claim.body_bytes)
            self._prompts.learn(claim.organisation, len(prompt) - cached)
        return self._job(claim, len(prompt), cached, answer_tokens, streams, due_for=len(prompt) - cached)

    @contextmanager
    def foreseen(self, claim: ClaimFacts) -> Iterator[Turnaway | None]:
        """Whether a request would be turned away for certain, known from the size of its body alone.

        To parse, render and tokenise one takes milliseconds of the cores that the engine computes with. In a burst that
        is mostly refused those add up to what everybody else waits for. So one that may be let in is counted as coming
        for those behind it, until it asks for its :meth:`turn` or the block ends.
        """
        try:
            yield self._foreseen(claim)
        finally:
            self._coming.pop(claim.request_id, None)

    def _foreseen(self, claim: ClaimFacts) -> Turnaway | None:
        expected = self._densities.of(claim.organisation) * claim.body_bytes / 1000
        tokens = round(min(SURELY * expected, max(FORESEEN_AT_MOST, self._prompts.of(claim.organisation))))
        if not tokens:
            return None
        answer = round(self._answers.of(claim.organisation))
        # A long prompt is due the later the longer it is: less of it to compute leaves it no less time.
        job = self._job(claim, tokens, 0, answer, 1, due_for=expected)
        refusal = self._pacer.turned_away_at_once(job, self._before(job))
        if refusal is None:
            self._coming[claim.request_id] = job
            return None
        return _turnaway(refusal)

    def _before(self, job: Job) -> Work:
        """What is coming of the same account."""
        coming = [one for one in self._coming.values() if one.account == job.account]
        prefill, answer = sum(one.prefill_tokens for one in coming), sum(one.answer_tokens for one in coming)
        return Work(prefill, answer, streams=len(coming), jobs=len(coming))

    def _job(
        self, claim: ClaimFacts, prompt_tokens: int, cached: int, answer_tokens: int, streams: int, *, due_for: float
    ) -> Job:
        """The job of a request that is due when one with ``due_for`` tokens to compute would be."""
        now = time.monotonic()
        promise = self._promises[claim.service_class]
        alone_s = due_for * self.capacity().speed.prefill_s
        return Job(
            id=str(next(self._serial)),
            organisation=claim.organisation,
            service_class=claim.service_class,
            weight=claim.weight,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached,
            answer_tokens=answer_tokens,
            arrived=now,
            first_token_by=due(now, promise.first_token_s, alone_s),
            deadline=now + max(0.0, claim.deadline - time.time()),
            streams=streams,
        )

    @asynccontextmanager
    async def turn(self, job: Job, claim: ClaimFacts, prompt: Sequence[int]) -> AsyncIterator[Turn]:
        """Wait for the request's turn.

        Raises:
            TurnedAway: it has none. The ASGI call that it belongs to is answered accordingly.
        """
        self._coming.pop(claim.request_id, None)
        pressing = job.service_class is not ServiceClass.BATCH
        self._pressing += pressing
        try:
            async with self._pacer.turn(job) as turn:
                self._prefixes.add(claim.cache_salt, prompt)
                yield turn
        except Refused as refused:
            turn_away(_turnaway(refused.refusal))
            raise TurnedAway(refused.refusal.why) from refused
        finally:
            self._pressing -= pressing

    def told(self, job: Job) -> Told:
        """What the engine's scheduler has to know of it."""
        promise = self._promises[job.service_class]
        return Told(
            organisation=job.organisation,
            batch=job.account.batch,
            share=job.share,
            step_s=Orders.keeping(promise.inter_token_s).step_s,
            first_token_by=job.first_token_by,
        )


def _turnaway(refusal: Refusal) -> Turnaway:
    status = OVER_SHARE if refusal.reason is Reason.OVER_SHARE else OVERLOADED
    return Turnaway(status, refusal.reason.value, refusal.retry_after_s or NO_HURRY_S)


def new_board() -> Board:
    """A board in a file of this user's alone. Raises ``OSError`` where there is no room for it."""
    return Board(Path(tempfile.gettempdir()) / f"domicile-board-{uuid4().hex}", create=True)
