"""The pacer: in front of the engine, it admits what the engine can serve well and keeps the engine's own queue short.

Who goes next and who is turned away is :mod:`serving.batching.policy`'s to say. Here are the clock, the waiting and
what is known of the engine. One event loop, no locks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from serving.batching.backlog import NO_WORK, Work
from serving.batching.capacity import Capacity
from serving.batching.jobs import Job, Reason, Refusal
from serving.batching.policy import SOONEST_RETRY_S, Policy

TICK_S = 0.05
"""How often those that wait are looked at while nothing else happens: an engine may stall, and clocks go on."""
_CROWDED = (Reason.OVER_SHARE, Reason.OVERLOADED)


class Refused(Exception):
    """The job was turned away before anything was generated for it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.why)
        self.refusal = refusal


class Turn:
    """A job's place in the engine. What comes of it is told here, for the ledger and for those who wait."""

    def __init__(self, job: Job, policy: Policy, pump: Callable[[], None]) -> None:
        self.job = job
        self._policy = policy
        self._pump = pump
        self._prefilled = False

    def answered(self, tokens: int) -> None:
        """So many tokens of the answer came. The first ones say that the prompt is prefilled."""
        prefill = 0 if self._prefilled else self.job.prefill_tokens
        self._policy.served(self.job.id, prefill, tokens)
        if not self._prefilled:
            self._prefilled = True
            self._pump()

    def ended(self) -> None:
        """The answer came to its own end."""
        self._policy.finished(self.job.id)


class Pacer:
    """Lets jobs into one engine."""

    def __init__(
        self,
        policy: Policy,
        capacity: Callable[[], Capacity],
        clock: Callable[[], float] = time.monotonic,
        tell_crowd: Callable[[int], None] = lambda waiting: None,
    ) -> None:
        """
        Args:
            capacity: what the engine can do, as last known. Asked at every decision.
            clock: seconds; the one that jobs' times are of.
            tell_crowd: hears how many wait, whenever that may have changed.
        """
        self._policy = policy
        self._capacity = capacity
        self._clock = clock
        self._tell_crowd = tell_crowd
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._ticking: asyncio.TimerHandle | None = None
        self.turned_away = dict.fromkeys(Reason, 0)
        """How many jobs were, by reason, also after they had waited."""

    @property
    def waiting(self) -> int:
        """Jobs that are not in the engine yet."""
        return self._policy.waiting

    def turned_away_at_once(self, job: Job, coming: Work = NO_WORK) -> Refusal | None:
        """Why a job of these sizes would be turned away now, for what is before it. It is counted as one that was.

        Args:
            coming: what else of its account is about to come before it.
        """
        self._policy.speed = self._capacity().speed
        refusal = self._policy.judge(job, self._clock(), coming)
        if refusal is None or refusal.reason not in _CROWDED:
            return None
        return self._refused(refusal).refusal

    @asynccontextmanager
    async def turn(self, job: Job) -> AsyncIterator[Turn]:
        """Wait for the job's turn, and hold its place in the engine for the block.

        Raises:
            Refused: at once, or when its promise can no longer be kept.
        """
        self._policy.speed = self._capacity().speed
        refusal = self._policy.offer(job, self._clock())
        if refusal is not None:
            raise self._refused(refusal)
        started = self._waiting[job.id] = asyncio.get_running_loop().create_future()
        try:
            self._pump()
            await started
            yield Turn(job, self._policy, self._pump)
        finally:
            # Where it has ended by itself this changes nothing.
            self._waiting.pop(job.id, None)
            self._policy.withdrawn(job.id)
            self._pump()

    def _pump(self) -> None:
        """Start whatever may start; give up on what came too late."""
        now = self._clock()
        capacity = self._capacity()
        self._policy.speed = capacity.speed
        self._give_up(now)
        while started := self._policy.next(now, capacity.room(self._policy.running_streams)):
            self._tell(started, None)
        # Others may have been found late while one was looked for that is not.
        self._give_up(now)
        self._tell_crowd(self._policy.waiting)
        self._tick()

    def _give_up(self, now: float) -> None:
        """On those that no idle engine could serve in time any more. They are told what one that came now would be."""
        for job in self._policy.expire(now):
            later = now - job.arrived
            again = self._policy.judge(
                replace(job, arrived=now, first_token_by=job.first_token_by + later, deadline=job.deadline + later), now
            )
            late = Refusal(Reason.OVERLOADED, SOONEST_RETRY_S, "its promise could no longer be kept")
            if again is not None and again.reason in _CROWDED:
                late = replace(late, reason=again.reason, retry_after_s=again.retry_after_s)
            self._tell(job, self._refused(late))

    def _tell(self, job: Job, refused: Refused | None) -> None:
        started = self._waiting.pop(job.id, None)
        if started is None or started.done():
            return
        if refused is None:
            started.set_result(None)
        else:
            started.set_exception(refused)

    def _refused(self, refusal: Refusal) -> Refused:
        self.turned_away[refusal.reason] += 1
        return Refused(refusal)

    def _tick(self) -> None:
        """Look again soon, as long as somebody waits."""
        if self._ticking is None and self._policy.waiting:
            self._ticking = asyncio.get_running_loop().call_later(TICK_S, self._ticked)

    def _ticked(self) -> None:
        self._ticking = None
        self._pump()
