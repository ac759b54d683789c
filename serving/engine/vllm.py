"""vLLM as an :class:`~serving.engine.port.Engine`: its own engine behind its own OpenAI application.

The only module of the replica that imports vLLM. vLLM's exceptions and its ``SystemExit`` end here; its
OpenAI layer is used as it is. Written against vLLM 0.32.0, whose names used here the contract tests hold.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client import REGISTRY, Gauge
from starlette.types import ASGIApp
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.exceptions import VLLMValidationError
from vllm.outputs import RequestOutput
from vllm.sampling_params import SamplingParams
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from serving.engine.arguments import ArgumentsRefused, Description
from serving.engine.grammars import GrammarGate, GrammarRefused
from serving.engine.port import EngineDead, EngineFacts, Load, guarded, require_claim

EXPECTED_ANSWER_TOKENS = 256
"""What a request without a limit of its own is taken to need: the mean of published conversations is 211."""

_WORD = "word"


class ClaimedLLM(AsyncLLM):  # type: ignore[misc] # mypy does not follow vllm
    """vLLM's engine, which generates only on behalf of a claim, under its organisation's cache salt (R4, R9)."""

    outstanding_tokens = 0
    grammars: GrammarGate

    # The parameters are AsyncLLM's own; naming them again would only age.
    async def generate(
        self, prompt: Any, sampling_params: SamplingParams, request_id: str, **options: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        claim = require_claim()
        await self._bound_grammar(sampling_params)
        salted = {**prompt, "cache_salt": claim.cache_salt}
        tokens = _expected_tokens(salted, sampling_params)
        self.outstanding_tokens += tokens
        try:
            async with aclosing(super().generate(salted, sampling_params, request_id, **options)) as outputs:
                async for output in outputs:
                    _refuse_abort(output)
                    yield output
        finally:
            self.outstanding_tokens -= tokens

    async def _bound_grammar(self, params: SamplingParams) -> None:
        """Compile a grammar apart, with bounds, before the engine compiles it without any."""
        wanted = params.structured_outputs
        if wanted is None:
            return
        try:
            await self.grammars.admit(json=wanted.json, regex=wanted.regex, grammar=wanted.grammar)
        except GrammarRefused as error:
            raise VLLMValidationError(str(error), parameter="structured_outputs") from error


def _refuse_abort(output: RequestOutput) -> None:
    """An engine that is stopped ends its requests as if they were whole; nobody must take the torn for the whole."""
    if output.finished and any(choice.finish_reason == "abort" for choice in output.outputs):
        raise EngineGenerateError


def _expected_tokens(prompt: Mapping[str, Any], params: SamplingParams) -> int:
    ids = prompt.get("prompt_token_ids") or ()
    answer: int = min(params.max_tokens or EXPECTED_ANSWER_TOKENS, EXPECTED_ANSWER_TOKENS) * params.n
    return len(ids) + answer


class VllmEngine:
    """One vLLM engine and its OpenAI application, in this process and its children."""

    def __init__(self, command_line: list[str], environment: Mapping[str, str]) -> None:
        """
        Args:
            command_line: as :func:`serving.engine.arguments.command_line` makes it.
            environment: set in this process so that vLLM's worker processes inherit it.

        Raises:
            ArgumentsRefused: vLLM's parser would not take the arguments.
        """
        self._args = parse(command_line)
        self._environment = environment
        self._llm: ClaimedLLM | None = None
        self._app: ASGIApp | None = None

    async def start(self) -> None:
        os.environ.update(self._environment)
        config = AsyncEngineArgs.from_cli_args(self._args).create_engine_config(
            usage_context=UsageContext.OPENAI_API_SERVER
        )
        llm = cast(ClaimedLLM, ClaimedLLM.from_vllm_config(config, usage_context=UsageContext.OPENAI_API_SERVER))
        llm.grammars = GrammarGate(self._args.model)
        tasks = await llm.get_supported_tasks()
        app = build_app(self._args, supported_tasks=tasks, model_config=llm.model_config)
        await init_app_state(llm, app.state, self._args, supported_tasks=tasks)
        # vLLM's error handlers tell its own server to exit when the engine died; here the health check does that.
        app.state.server = SimpleNamespace(should_exit=False)
        # Beside vLLM's own in the registry that its application shows: one engine a process, so no labels.
        self._outstanding = Gauge("domicile:outstanding_tokens", "Tokens not yet prefilled or generated.")
        self._outstanding.set_function(lambda: llm.outstanding_tokens)
        self._llm, self._app = llm, guarded(app)

    async def stop(self) -> None:
        llm, self._llm, self._app = self._llm, None, None
        if llm is not None:
            REGISTRY.unregister(self._outstanding)
            llm.grammars.close()
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
        return Load(running=unfinished - waiting, waiting=waiting, outstanding_tokens=llm.outstanding_tokens)

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
    parser = _parser()
    try:
        args = parser.parse_args(command_line)
        validate_parsed_serve_args(args)
        validate_api_server_args(args)
    except (SystemExit, KeyError, TypeError, ValueError) as error:
        raise ArgumentsRefused(f"vLLM refused the engine arguments {command_line}: {error}") from error
    return args


def describe_arguments() -> dict[str, Description]:
    """The pinned vLLM's parser in the form of ``arguments.json``."""
    return {
        action.dest: {"takes": _takes(action), "type": _type(action), "choices": _choices(action)}
        for action in sorted(_parser()._actions, key=lambda action: action.dest)
        if action.option_strings and action.dest != "help"
    }


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = make_arg_parser(FlexibleArgumentParser())
    return parser


def _takes(action: argparse.Action) -> Any:
    if isinstance(action, argparse.BooleanOptionalAction):
        return "switch"
    if action.nargs == 0:
        return "nothing"
    return "many" if action.nargs in ("+", "*") else "one"


def _type(action: argparse.Action) -> Any:
    """Found by trying the argument's own converter, since converters do not say what they make."""
    if not callable(action.type) or _converts(action.type, _WORD) or _converts(action.type, "{}"):
        return "text"
    for kind, sample in ((int, "7"), (float, "0.5")):
        if _converts(action.type, sample) is kind:
            return kind.__name__
    return "text"


def _converts(convert: Callable[[str], object], sample: str) -> type | None:
    try:
        return type(convert(sample))
    except Exception:  # Converters of vLLM refuse with whatever comes: any refusal says "not this".
        return None


def _choices(action: argparse.Action) -> list[str] | None:
    return sorted(map(str, action.choices)) if action.choices else None
