"""The scheduler inside vLLM's engine: decodes first, prefill in fair order, as much of it as the step's time allows.

A mixin over vLLM's own schedulers, which do all the work: it says how many tokens a step may have and who comes first,
and measures how long steps take. ``scheduler_cls`` is accepted by vLLM but not a public interface; every name of vLLM
used here is held by ``tests/engine/test_scheduler_contract.py`` against the pinned release.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from serving import settings
from serving.batching.board import Board, Reading
from serving.batching.jobs import Account
from serving.batching.ledger import Ledger, virtual_tokens
from serving.batching.orders import CONFIG, EXTRA, Orders, Told
from serving.batching.step import COMPANY_S, Behind, Limits, Plan, Prefill, bearable_s, plan
from serving.batching.steptime import Step, StepTime

SPARE = 64


class FairScheduling:
    """Mixed in before a scheduler of vLLM's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own: Any = self
        self._orders = Orders.of(own.vllm_config.additional_config.get(CONFIG, {}))
        self._whole_budget: int = own.max_num_scheduled_tokens
        self._limits = Limits(tokens=self._whole_budget, step_s=self._orders.step_s)
        self._model = StepTime()
        self._ledger = Ledger()
        self._behind = Behind()
        self._present: set[Account] = set()
        self._seen: dict[Account, float] = {}
        self._streams: dict[str, tuple[float, int]] = {}
        self._under_way: deque[tuple[SchedulerOutput, Step, float]] = deque()
        self._ended = 0.0
        self._tight: set[str] = set()
        # Prompts that vLLM computes in one piece, or, for hybrid models, only up to certain tokens.
        self._unsplit: bool = not own.scheduler_config.enable_chunked_prefill or own.need_mamba_block_aligned_split
        self._stuck = False
        path = settings.board()
        self._board = Board(path) if path else None

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        own: Any = self
        now = time.monotonic()
        step_plan, decoding = self._planned(now)
        held = [] if self._tight else [one for one in own.running if one.request_id in step_plan.held]
        active = own.max_num_active_reqs
        if held:
            own.running = [one for one in own.running if one.request_id not in step_plan.held]
            # What is held keeps its place among the running.
            own.max_num_active_reqs = active - len(held)
        budget = self._whole_budget if self._stuck else step_plan.tokens
        own.max_num_scheduled_tokens = min(self._whole_budget, max(1, budget))
        try:
            output: SchedulerOutput = super().schedule(throttle_prefills)  # type: ignore[misc] # the mixin's other base
        finally:
            own.running += held
            own.max_num_active_reqs = active
            own.max_num_scheduled_tokens = self._whole_budget
        decoded = decoding.issuperset(output.num_scheduled_tokens)
        if held and decoded:
            self._tight = {one.request_id for one in held}
        # Nobody of those who wait is small enough for a step that is bearable: the next one takes what it must.
        self._stuck = self._unsplit and decoded and bool(step_plan.order)
        self._note(output, decoding, now)
        return output

    def update_from_output(self, scheduler_output: SchedulerOutput, model_runner_output: Any) -> Any:
        self._measure(scheduler_output)
        return super().update_from_output(scheduler_output, model_runner_output)  # type: ignore[misc]

    def _planned(self, now: float) -> tuple[Plan, set[str]]:
        """Put the queues in order and say how large the step may be."""
        own: Any = self
        decodes = [one for one in own.running if not _prefilling(one)]
        begun = [one for one in own.running if _prefilling(one)]
        waiting, unready = _apart(own.waiting)
        prefills = [_prefill(one, admitted=True) for one in begun] + [_prefill(one, admitted=False) for one in waiting]
        self._attend([*own.running, *waiting, *unready], begun + waiting, now)
        patient = all(account.batch for account in self._seen)
        more = self._behind.step(now, len(prefills)) or (self._board is not None and self._board.crowd() > 0)
        context = sum(one.num_computed_tokens for one in decodes)
        step_plan = plan(
            prefills,
            self._ledger.counter,
            now=now,
            decode_streams=len(decodes),
            decode_tokens=sum(_tokens(one) for one in decodes),
            context_tokens=context,
            promised_s=min((self._allowed(one, now) for one in decodes), default=math.inf),
            company=len(self._seen) > 1 and not patient,
            crowded=more or patient,
            model=self._model,
            limits=self._limits,
        )
        place = {name: index for index, name in enumerate(step_plan.order)}
        # Held ones keep their blocks of the cache. Where who comes before them lacks those it never begins: they go on
        # instead, the one with least left first, until one of them is done, or put back for its blocks.
        if not self._tight.issubset(one.request_id for one in begun):
            self._tight = set()
        own.running = decodes + sorted(begun, key=_left if self._tight else lambda one: place[one.request_id])
        if len(waiting) + len(unready) > 1:
            own.waiting.clear()
            own.waiting.extend([*sorted(waiting, key=lambda one: place[one.request_id]), *unready])
        return step_plan, {one.request_id for one in decodes}

    def _allowed(self, request: Request, now: float) -> float:
        """The longest step that this stream bears."""
        began, tokens = self._streams.setdefault(request.request_id, (now, int(request.num_tokens)))
        return bearable_s(_told(request).step_s, int(request.num_tokens) - tokens, now - began)

    def _attend(self, requests: list[Request], prefilling: list[Request], now: float) -> None:
        """Who has prompts to prefill, for the ledger; who was here lately, for newcomers."""
        present = {_told(one).account for one in prefilling}
        for account in present - self._present:
            self._ledger.enter(account)
        for account in self._present - present:
            self._ledger.leave(account)
        self._present = present
        for one in requests:
            self._seen[_told(one).account] = now
        for account in [name for name, at in self._seen.items() if now - at > COMPANY_S]:
            del self._seen[account]
        if len(self._streams) > 2 * len(requests) + SPARE:
            here = {one.request_id for one in requests}
            self._streams = {name: stream for name, stream in self._streams.items() if name in here}

    def _note(self, output: SchedulerOutput, decoding: set[str], now: float) -> None:
        """Charge what was scheduled, and remember the step until it has run."""
        own: Any = self
        prefilled = streams = context = 0
        for request_id, tokens in output.num_scheduled_tokens.items():
            request = own.requests[request_id]
            told = _told(request)
            if request_id in decoding:
                streams += 1
                context += request.num_computed_tokens
                self._ledger.charge(told.account, virtual_tokens(0, tokens, told.share))
            else:
                prefilled += tokens
                self._ledger.charge(told.account, virtual_tokens(tokens, 0, told.share))
        self._under_way.append((output, Step(prefilled, streams, context), now))

    def _measure(self, output: SchedulerOutput) -> None:
        """How long the step took: from when it was given, or from the end of the one before where they overlap."""
        while self._under_way:
            one, step, began = self._under_way.popleft()
            if one is output:
                ended = time.monotonic()
                if output.total_num_scheduled_tokens:
                    self._model.observe(step, ended - max(began, self._ended))
                self._ended = ended
                self._tell(step, ended)
                return

    def _tell(self, step: Step, now: float) -> None:
        if self._board is None:
            return
        own: Any = self
        left = sum(_left(one) for one in (*own.running, *own.waiting) if _prefilling(one))
        known = self._model.coefficients
        self._board.write(
            Reading(
                fixed_s=known.fixed_s,
                prefill_token_s=known.prefill_token_s,
                decode_stream_s=known.decode_stream_s,
                context_token_s=known.context_token_s,
                error=self._model.error,
                observations=self._model.observations,
                prefill_left=left,
                decoding=step.decode_streams,
                context_tokens=step.context_tokens,
                stepped_at=now,
            )
        )


class FairScheduler(FairScheduling, Scheduler):  # type: ignore[misc] # mypy does not follow vllm
    """For engines that wait for each step, as on CPUs."""


class FairAsyncScheduler(FairScheduling, AsyncScheduler):  # type: ignore[misc]
    """For engines that prepare a step while the one before runs, as on GPUs."""


def _prefilling(request: Request) -> bool:
    """A waiting request, or one whose last chunk was not its last."""
    return bool(request.is_prefill_chunk) or request.num_computed_tokens == 0


def _apart(waiting: Iterable[Request]) -> tuple[list[Request], list[Request]]:
    """Those that can begin, and those whose grammar the engine still compiles: nobody stands back for them."""
    ready: list[Request] = []
    unready: list[Request] = []
    for one in waiting:
        compiling = one.status is RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
        wanted = one.structured_output_request
        (unready if compiling and wanted and wanted.grammar is None else ready).append(one)
    return ready, unready


def _tokens(request: Request) -> int:
    """What a decoding request takes of a step's budget."""
    return int(request.num_tokens_with_spec + request.num_output_placeholders - request.num_computed_tokens)


def _left(request: Request) -> int:
    return int(request.num_tokens - request.num_computed_tokens)


def _prefill(request: Request, *, admitted: bool) -> Prefill:
    told = _told(request)
    computed = int(request.num_computed_tokens)
    return Prefill(request.request_id, told.account, _left(request), told.first_token_by, admitted, computed)


def _told(request: Request) -> Told:
    """What the replica wrote with the request. A client's own fields never reach this name."""
    params = request.sampling_params
    extra = params.extra_args.get(EXTRA) if params is not None and params.extra_args else None
    return Told.of(extra) if extra else Told()
