"""A deterministic engine for tests, behind the same surface as vLLM, warts included."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from starlette.types import ASGIApp

from serving.engine.fake import metrics
from serving.engine.fake.app import build
from serving.engine.fake.generation import Token
from serving.engine.fake.reading import Ask
from serving.engine.fake.text import Answer, answer
from serving.engine.port import ClaimFacts, EngineDead, EngineFacts, Load, Moments, guarded, require_claim
from serving.engine.spending import Spending
from serving.types import Usage

BLOCK = 16
"""Tokens of a block of the prefix cache."""


class FakeEngine:
    """Speaks as vLLM does, out of a hat.

    ``token_s`` paces the answers, ``slots`` bounds how many run at once. :meth:`stall`, :meth:`resume` and :meth:`die`
    are for tests, as are the lists of request ids.
    """

    def __init__(
        self,
        model: str = "fake",
        context_length: int = 4096,
        vocab_size: int = 1000,
        token_s: float = 0.0,
        slots: int = 256,
    ) -> None:
        self.token_s = token_s
        self.claims: list[ClaimFacts] = []
        self.finished: list[str] = []
        self.aborted: list[str] = []
        self._facts = EngineFacts(model, context_length, vocab_size)
        self._slots = asyncio.Semaphore(slots)
        self._cache_tokens = slots * context_length
        self._going = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._death: Exception | None = None
        self._stopping = False
        self._outstanding: dict[int, int] = {}
        self._running = 0
        self._counters = metrics.Counters()
        self._spending = Spending()
        self._cache: set[tuple[str, tuple[str, ...]]] = set()
        self._app = guarded(build(self._facts, self.generate, self.check, self.metrics))

    @property
    def app(self) -> ASGIApp:
        return self._app

    async def start(self) -> None:
        self._stopping = False
        self._going.set()

    async def stop(self) -> None:
        """End what is in flight as vLLM does when it is told to terminate: with ``abort`` for a reason."""
        self._stopping = True
        self._going.set()
        await self._idle.wait()

    async def check(self) -> None:
        if self._death is not None:
            raise EngineDead("the engine is dead")

    def load(self) -> Load:
        waiting = len(self._outstanding) - self._running
        return Load(self._running, waiting, sum(self._outstanding.values()))

    def spent(self, request_id: str) -> Usage | None:
        return self._spending.of(request_id)

    def facts(self) -> EngineFacts:
        return self._facts

    def metrics(self) -> str:
        return metrics.text(self._facts, self.load(), self._counters, self._cache_tokens)

    def stall(self) -> None:
        """Generate nothing more until :meth:`resume`."""
        self._going.clear()

    def resume(self) -> None:
        self._going.set()

    def die(self, *, torn: bool = True) -> None:
        """Serve no more. Torn, connections break as when the process dies; else the API layer lives to say so."""
        self._death = ConnectionResetError("the engine died") if torn else EngineDead("the engine is dead")
        self._going.set()

    async def generate(self, ask: Ask) -> AsyncGenerator[Token, None]:
        """One token of each choice in turn."""
        claim = require_claim()
        self.claims.append(claim)
        if ask.late is not None:
            raise ask.late
        answers = [answer(prompt, ask.wish, choice) for prompt in ask.prompts for choice in range(ask.n)]
        moments = claim.watched()
        key = id(ask)
        self._outstanding[key] = sum(len(each.tokens) for each in answers) + sum(map(len, ask.prompts))
        self._idle.clear()
        done = False
        begun = time.monotonic()
        try:
            async with self._slots:
                waited = time.monotonic() - begun
                if moments is not None:
                    moments.admitted = time.time_ns()
                async for token in self._run(key, claim, ask, answers):
                    if moments is not None:
                        _note(moments, ask, token)
                    yield token
            done = True
            # Like vLLM's, the histogram tells of requests that finished.
            self._counters.queued += 1
            self._counters.queued_s += waited
        finally:
            del self._outstanding[key]
            if not self._outstanding:
                self._idle.set()
            (self.finished if done else self.aborted).append(claim.request_id)

    async def _run(
        self, key: int, claim: ClaimFacts, ask: Ask, answers: Sequence[Answer]
    ) -> AsyncGenerator[Token, None]:
        self._running += 1
        prompted = held = sum(map(len, ask.prompts))
        counters = self._counters
        cost = self._spending.begun(claim.request_id, prompted)
        try:
            cached = cost.cached = sum(self._prefill(claim.cache_salt, prompt) for prompt in ask.prompts)
            self._outstanding[key] -= prompted
            counters.prompt_tokens += prompted
            counters.held_tokens += prompted
            for place in range(max(len(each.tokens) for each in answers)):
                await self._step()
                for choice, whole in enumerate(answers):
                    if place < len(whole.tokens):
                        self._outstanding[key] -= 1
                        held += 1
                        counters.held_tokens += 1
                        counters.generation_tokens += 1
                        cost.completion += 1
                        yield _token(choice, place, whole, cached, stopping=self._stopping)
                if self._stopping:
                    return
        finally:
            self._running -= 1
            counters.held_tokens -= held

    async def _step(self) -> None:
        await asyncio.sleep(self.token_s)
        await self._going.wait()
        if self._death is not None:
            raise self._death

    def _prefill(self, salt: str, prompt: Sequence[str]) -> int:
        """Tokens found in the cache, where the prompt's blocks are put. The last token is always computed."""
        blocks = [(salt, tuple(prompt[:end])) for end in range(BLOCK, len(prompt), BLOCK)]
        found = 0
        while found < len(blocks) and blocks[found] in self._cache:
            found += 1
        self._cache.update(blocks)
        return found * BLOCK


def _note(moments: Moments, ask: Ask, token: Token) -> None:
    moments.first = moments.first or time.time_ns()
    moments.ended = time.time_ns()
    moments.answer_tokens += 1
    moments.prompt_tokens = sum(map(len, ask.prompts))
    moments.cached_tokens = token.cached


def _token(choice: int, place: int, whole: Answer, cached: int, *, stopping: bool) -> Token:
    text = whole.tokens[place]
    if stopping:
        return Token(choice, place, text, cached, "abort")
    if place < len(whole.tokens) - 1:
        return Token(choice, place, text, cached)
    return Token(choice, place, text, cached, whole.finish_reason, whole.stop_reason)
