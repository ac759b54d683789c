"""Grammars that callers send are compiled in a process apart first: with a time limit and a memory limit.

vLLM compiles regular expressions, JSON schemas and grammars inside the engine, without bounds; one hostile
pattern would stop every organisation's answers. What compiles here within bounds is cached by digest and may
then be compiled there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections import OrderedDict

TIME_LIMIT_S = 3.0
START_LIMIT_S = 60.0
MEMORY_LIMIT_BYTES = 1024**3
"""For the grammar itself, beside what the compiling process needs to be there."""
IDLE_S = 120.0
_REMEMBERED = 4096


class GrammarRefused(ValueError):
    """The grammar does not compile, or not within its bounds."""


class GrammarGate:
    """Admits grammars for one model. The compiling process starts when first needed and ends when idle."""

    def __init__(self, tokenizer: str) -> None:
        self._tokenizer = tokenizer
        self._verdicts: OrderedDict[bytes, str | None] = OrderedDict()
        self._turn = asyncio.Lock()
        self._compiler: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def admit(self, *, json: object = None, regex: str | None = None, grammar: str | None = None) -> None:
        """
        Raises:
            GrammarRefused: says whether it is wrong or only too expensive.
        """
        job = _job(json, regex, grammar)
        if job is None:
            return
        digest = hashlib.sha256(job).digest()
        if digest not in self._verdicts:
            async with self._turn:
                if digest not in self._verdicts:
                    self._verdicts[digest] = await self._judge(job)
                    while len(self._verdicts) > _REMEMBERED:
                        self._verdicts.popitem(last=False)
        if (reason := self._verdicts[digest]) is not None:
            raise GrammarRefused(reason)

    async def aclose(self) -> None:
        """End the compiling process, and wait until it has ended."""
        compiler = self._compiler
        self._end()
        if compiler is not None:
            await compiler.wait()

    def _end(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if self._compiler is not None and self._compiler.returncode is None:
            self._compiler.kill()
        self._compiler = None

    async def _judge(self, job: bytes) -> str | None:
        try:
            compiler = await self._running()
            try:
                line = await _asked(compiler, job)
            except TimeoutError:
                self._end()
                return f"the grammar did not compile within {TIME_LIMIT_S:.0f} s"
            except ConnectionError:
                line = b""
        except BaseException:
            # Who asked has left, or it did not start. What it still says would be taken for the next one's verdict.
            self._end()
            raise
        if not line:
            self._end()
            return "the grammar needs too much memory to compile"
        self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._end)
        verdict: str | None = json.loads(line)
        return verdict

    async def _running(self) -> asyncio.subprocess.Process:
        if self._idle is not None:
            self._idle.cancel()
        if self._compiler is None or self._compiler.returncode is not None:
            self._compiler = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "serving.engine.compiler",
                self._tokenizer,
                str(MEMORY_LIMIT_BYTES),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert self._compiler.stdout is not None
            async with asyncio.timeout(START_LIMIT_S):
                await self._compiler.stdout.readline()
        return self._compiler


async def _asked(compiler: asyncio.subprocess.Process, job: bytes) -> bytes:
    """Its answer. Raises ``TimeoutError`` and ``ConnectionError``."""
    assert compiler.stdin is not None
    assert compiler.stdout is not None
    compiler.stdin.write(job + b"\n")
    async with asyncio.timeout(TIME_LIMIT_S):
        return await compiler.stdout.readline()


def _job(json_schema: object, regex: str | None, grammar: str | None) -> bytes | None:
    for kind, value in (("json", json_schema), ("regex", regex), ("grammar", grammar)):
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            return json.dumps([kind, text]).encode()
    return None
