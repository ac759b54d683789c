"""vLLM as an :class:`~serving.engine.port.Engine`: its own engine behind its own OpenAI application.

The only module of the replica that imports vLLM. vLLM's exceptions and its ``SystemExit`` end here; its
OpenAI layer is used as it is. Written against vLLM 0.32.0, whose names used here the contract tests hold.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import fields
from functools import partial
from itertools import count
from time import time_ns
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client import REGISTRY, Gauge
from starlette.types import ASGIApp, Scope
from vllm.config import CacheConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.exceptions import RetryableRequestError, VLLMValidationError
from vllm.inputs.engine import tokens_input
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from serving.batching.board import Reading
from serving.batching.jobs import Reason
from serving.batching.lengths import EXPECTED_AT_MOST
from serving.batching.nucleus import PARAMETERS, take_over
from serving.batching.orders import EXTRA
from serving.batching.pacer import Turn
from serving.batching.steptime import PROFILE_ANSWER, PROFILE_PROMPTS, PROFILE_STREAMS
from serving.engine.arguments import BATCH_PIECE_TOKENS, DEFAULT_SLO, ArgumentsRefused
from serving.engine.grammars import GrammarGate, GrammarRefused
from serving.engine.paced import Core, new_board
from serving.engine.port import GENERATING, ClaimFacts, EngineDead, EngineFacts, Load, Moments, guarded, require_claim
from serving.engine.queues import unname
from serving.engine.spending import Cost, Spending
from serving.engine.turnaway import Turnaway, TurnedAway, foreseeing, heeding
from serving.settings import BOARD
from serving.types import ServiceClass, Usage
from tenants.country import Slo

_OURS = (EXTRA, PARAMETERS)


class ClaimedLLM(AsyncLLM):  # type: ignore[misc] # mypy does not follow vllm
    """vLLM's engine, which generates only on behalf of a claim, under its organisation's cache salt (R4, R9)."""

    outstanding_tokens = 0
    grammars: GrammarGate
    spending: Spending
    core: Core | None = None
    """Absent where the tenant wants vLLM's own scheduler."""
    sieves = False
    """Whether our kernel samples: it takes the parameters of a request over, so that vLLM does not sort for them."""

    # The parameters are AsyncLLM's own; naming them again would only age.
    async def generate(
        self, prompt: Any, sampling_params: SamplingParams, request_id: str, **options: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        claim = require_claim()
        await self._bound_grammar(sampling_params)
        salted = {**prompt, "cache_salt": claim.cache_salt}
        tokens = _expected_tokens(salted, sampling_params)
        whole = _Whole() if sampling_params.output_kind is RequestOutputKind.FINAL_ONLY else None
        moments = claim.watched()
        self.outstanding_tokens += tokens
        try:
            async with (
                self._turn(claim, salted, sampling_params) as (turn, params),
                aclosing(super().generate(salted, params, request_id, **options)) as outputs,
            ):
                hear = turn if moments is None else _Watched(turn, moments, params.output_kind)
                async for output in outputs:
                    _refuse_abort(output)
                    hear(output)
                    if whole is None or (output := whole(output)):
                        yield output
        finally:
            self.outstanding_tokens -= tokens

    @asynccontextmanager
    async def _turn(
        self, claim: ClaimFacts, prompt: Mapping[str, Any], params: SamplingParams
    ) -> AsyncIterator[tuple[Callable[[RequestOutput], int], SamplingParams]]:
        """Wait for the request's turn; then what has to hear of its outputs, and the parameters for the engine."""
        # Only its own attributes are set below, so what they refer to may be shared.
        params = copy.copy(params)
        # Whatever a client wrote under our names is gone, whether or not we have something to write there.
        params.extra_args = {key: kept for key, kept in (params.extra_args or {}).items() if key not in _OURS}
        if self.sieves:
            take_over(params)
        if claim.service_class is ServiceClass.BATCH:
            params.stream_interval = max(params.stream_interval or 1, BATCH_PIECE_TOKENS)
        ids = prompt.get("prompt_token_ids") or ()
        if self.core is None:
            yield _Progress(None, self.spending.begun(claim.request_id, len(ids)), params), params
            return
        if params.output_kind is RequestOutputKind.FINAL_ONLY:
            # Nobody reads what comes in between, but the pacer has to know when the prompt is prefilled.
            params.output_kind = RequestOutputKind.CUMULATIVE
        job = self.core.job(claim, ids, _longest_answer(params, len(ids), self.model_config.max_model_len), params.n)
        params.extra_args |= self.core.told(job).extra()
        try:
            async with self.core.turn(job, claim, ids) as turn:
                yield _Progress(turn, self.spending.begun(claim.request_id, len(ids)), params), params
        except TurnedAway as away:
            # vLLM makes an error of it; the answer that is sent was noted where it was turned away.
            raise RetryableRequestError(str(away)) from away

    async def profile(self) -> None:
        """Short requests of known sizes, for the scheduler's step-time model, and so that nothing is cold."""
        serial = count()
        vocabulary = self.model_config.get_vocab_size()

        async def ask(name: str, tokens: int, answer: int) -> None:
            # Different each time, so that no cache makes a step cheaper than it is.
            prompt = tokens_input([next(serial) % vocabulary for _ in range(tokens)], cache_salt="profile")
            params = SamplingParams(max_tokens=answer, ignore_eos=True, output_kind=RequestOutputKind.FINAL_ONLY)
            # AsyncLLM's own: nobody has a claim yet.
            async for _ in super(ClaimedLLM, self).generate(prompt, params, f"profile-{name}"):
                pass

        for size in PROFILE_PROMPTS:
            await ask(f"prefill-{size}", size, 1)
        for streams in PROFILE_STREAMS:
            await asyncio.gather(*(ask(f"decode-{streams}-{one}", 8, PROFILE_ANSWER) for one in range(streams)))

    async def _bound_grammar(self, params: SamplingParams) -> None:
        """Compile a grammar apart, with bounds, before the engine compiles it without any."""
        wanted = params.structured_outputs
        if wanted is None:
            return
        try:
            await self.grammars.admit(json=wanted.json, regex=wanted.regex, grammar=wanted.grammar)
        except GrammarRefused as error:
            raise VLLMValidationError(str(error), parameter="structured_outputs") from error


def _gauges(llm: ClaimedLLM) -> Iterator[Gauge]:
    """What we know of an engine and vLLM does not, read when it is asked for."""

    def gauge(name: str, about: str, value: Callable[[], float]) -> Gauge:
        made = Gauge(f"domicile:{name}", about)
        made.set_function(value)
        return made

    yield gauge("outstanding_tokens", "Tokens not yet prefilled or generated.", lambda: llm.outstanding_tokens)
    core = llm.core
    if core is None:
        return
    yield gauge("waiting_requests", "Requests that wait for their turn before the engine.", lambda: core.waiting)
    yield gauge("slots", "Streams that keep the inter-token promise together.", lambda: core.capacity().slots)
    for reason in Reason:
        about = f"Requests turned away since the start: {reason.value}."
        yield gauge(f"turned_away_{reason.value}", about, partial(core.refusals.__getitem__, reason))
    for field in fields(Reading):
        about = f"The engine's last step as its scheduler told it: {field.name}."
        yield gauge(f"engine_{field.name}", about, partial(core.reading, field.name))


class _Whole:
    """The one output of who reads no pieces, with all of its answers: vLLM tells of each as it goes on."""

    def __init__(self) -> None:
        self._answers: dict[int, CompletionOutput] = {}

    def __call__(self, output: RequestOutput) -> RequestOutput | None:
        self._answers.update((one.index, one) for one in output.outputs)
        if not output.finished:
            return None
        output.outputs = [self._answers[index] for index in sorted(self._answers)]
        return output


class _Progress:
    """Counts what an output brought, and tells the pacer where there is one."""

    def __init__(self, turn: Turn | None, cost: Cost, params: SamplingParams) -> None:
        self._turn = turn
        self._cost = cost
        self._pieces = params.output_kind is RequestOutputKind.DELTA
        self._begun = False
        self._seen: dict[int, int] = {}
        """Tokens of each answer, where every output brings all of them again."""

    def __call__(self, output: RequestOutput) -> int:
        """Returns how many tokens are new."""
        new = sum(self._new(answer) for answer in output.outputs)
        if not self._begun:
            self._cost.cached += output.num_cached_tokens or 0
        self._begun = self._begun or new > 0
        self._cost.completion += new
        if self._turn is None:
            return new
        if new > 0:
            self._turn.answered(new)
        if output.finished:
            self._turn.ended()
        return new

    def _new(self, answer: CompletionOutput) -> int:
        tokens = len(answer.token_ids)
        if self._pieces:
            return tokens
        before = self._seen.get(answer.index, 0)
        self._seen[answer.index] = tokens
        return tokens - before


class _Watched:
    """Writes down, for the trace of a request, when its generation came to what."""

    def __init__(self, hear: Callable[[RequestOutput], int], moments: Moments, kind: RequestOutputKind) -> None:
        self._hear = hear
        self._moments = moments
        self._kind = kind
        moments.admitted = time_ns()

    def __call__(self, output: RequestOutput) -> int:
        moments, tokens = self._moments, self._hear(output)
        moments.answer_tokens += tokens
        if tokens and not moments.first and self._kind is not RequestOutputKind.FINAL_ONLY:
            moments.first = time_ns()
        if output.finished:
            moments.ended = time_ns()
            moments.prompt_tokens = len(output.prompt_token_ids or ())
            moments.cached_tokens = output.num_cached_tokens or 0
        return tokens


def _foreseen(core: Core | None, scope: Scope) -> AbstractContextManager[Turnaway | None]:
    return core.foreseen(require_claim()) if core is not None and scope["path"] in GENERATING else nullcontext()


def _longest_answer(params: SamplingParams, prompt_tokens: int, context_length: int) -> int:
    room = max(1, context_length - prompt_tokens)
    return min(params.max_tokens, room) if params.max_tokens else room


def _refuse_abort(output: RequestOutput) -> None:
    """An engine that is stopped ends its requests as if they were whole; nobody must take the torn for the whole."""
    if any(choice.finish_reason == "abort" for choice in output.outputs):
        raise EngineGenerateError


def _prefix_room(cache: CacheConfig) -> int:
    """Tokens of the prefix cache, 0 where there is none."""
    return int(cache.num_gpu_blocks or 0) * int(cache.block_size) if cache.enable_prefix_caching else 0


def _expected_tokens(prompt: Mapping[str, Any], params: SamplingParams) -> int:
    ids = prompt.get("prompt_token_ids") or ()
    answer: int = min(params.max_tokens or EXPECTED_AT_MOST, EXPECTED_AT_MOST) * params.n
    return len(ids) + answer


class VllmEngine:
    """One vLLM engine and its OpenAI application, in this process and its children."""

    def __init__(self, command_line: list[str], environment: Mapping[str, str], slo: Slo = DEFAULT_SLO) -> None:
        """
        Args:
            command_line: as :func:`serving.engine.arguments.command_line` makes it.
            environment: set in this process so that vLLM's worker processes inherit it.
            slo: what the country promises.

        Raises:
            ArgumentsRefused: vLLM's parser would not take the arguments.
        """
        self._args = parse(command_line)
        self._environment = environment
        self._slo = slo
        self._llm: ClaimedLLM | None = None
        self._app: ASGIApp | None = None
        self._spending = Spending()

    async def start(self) -> None:
        os.environ.update(self._environment)
        board = new_board() if self._args.scheduler_cls else None
        if board is not None:
            os.environ[BOARD] = str(board.path)
        config = AsyncEngineArgs.from_cli_args(self._args).create_engine_config(
            usage_context=UsageContext.OPENAI_API_SERVER
        )
        llm = cast(ClaimedLLM, ClaimedLLM.from_vllm_config(config, usage_context=UsageContext.OPENAI_API_SERVER))
        llm.grammars = GrammarGate(self._args.model)
        llm.spending = self._spending
        llm.sieves = bool(self._args.logits_processors)
        if board is not None:
            # The engine has mapped it: from here on it needs no name, and so leaves nothing behind.
            board.path.unlink()
            llm.core = Core(
                self._slo,
                max_streams=config.scheduler_config.max_num_seqs,
                cache_tokens=_prefix_room(config.cache_config),
                cache_block=config.cache_config.block_size,
                board=board,
            )
            await llm.profile()
        tasks = await llm.get_supported_tasks()
        app = build_app(self._args, supported_tasks=tasks, model_config=llm.model_config)
        await init_app_state(llm, app.state, self._args, supported_tasks=tasks)
        # vLLM's error handlers tell its own server to exit when the engine died; here the health check does that.
        app.state.server = SimpleNamespace(should_exit=False)
        unname()
        # Beside vLLM's own in the registry that its application shows: one engine a process, so no labels.
        self._gauges = list(_gauges(llm))
        self._llm, self._app = llm, guarded(foreseeing(heeding(app), partial(_foreseen, llm.core)))

    async def stop(self) -> None:
        llm, self._llm, self._app = self._llm, None, None
        if llm is not None:
            for gauge in self._gauges:
                REGISTRY.unregister(gauge)
            await llm.grammars.aclose()
            llm.shutdown(timeout=0)

    async def check(self) -> None:
        if self._llm is None:
            raise EngineDead("the engine is not running")
        try:
            await self._llm.check_health()
        except EngineDeadError as error:
            raise EngineDead("vLLM's engine core died") from error

    def load(self) -> Load:
        llm = self._running
        unfinished = llm.get_num_unfinished_requests()
        waiting = max(0, unfinished - llm.vllm_config.scheduler_config.max_num_seqs)
        if llm.core is not None:
            waiting += llm.core.waiting
            unfinished += llm.core.waiting
        return Load(running=unfinished - waiting, waiting=waiting, outstanding_tokens=llm.outstanding_tokens)

    def spent(self, request_id: str) -> Usage | None:
        return self._spending.of(request_id)

    def facts(self) -> EngineFacts:
        config = self._running.model_config
        return EngineFacts(
            model=self._args.served_model_name[0],
            context_length=config.max_model_len,
            vocab_size=config.get_vocab_size(),
        )

    @property
    def app(self) -> ASGIApp:
        if self._app is None:
            raise EngineDead("the engine is not running")
        return self._app

    @property
    def _running(self) -> ClaimedLLM:
        if self._llm is None:
            raise EngineDead("the engine is not running")
        return self._llm


def parse(command_line: list[str]) -> argparse.Namespace:
    """
    Raises:
        ArgumentsRefused: with the parser's own words.
    """
    try:
        args = parser().parse_args(command_line)
        validate_parsed_serve_args(args)
        validate_api_server_args(args)
    except (SystemExit, KeyError, TypeError, ValueError) as error:
        raise ArgumentsRefused(f"vLLM refused the engine arguments {command_line}: {error}") from error
    return args


def parser() -> argparse.ArgumentParser:
    """vLLM's own."""
    made: argparse.ArgumentParser = make_arg_parser(FlexibleArgumentParser())
    return made
