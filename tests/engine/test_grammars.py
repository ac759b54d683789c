"""Grammars are compiled apart, within bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from serving.engine import grammars
from serving.engine.grammars import GrammarGate, GrammarRefused
from serving.engine.models import prepare
from serving.settings import Settings

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

EXPLODING = "".join(f"[^{one}]{{0,9000}}{other}" for one, other in zip("acegikmoqsuw", "bdfhjlnprtvx", strict=True))
"""Ten seconds of compiling where it is fastest, a minute elsewhere."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate() -> AsyncIterator[GrammarGate]:
    model = prepare("smollm2-135m-instruct", Settings.from_environment().models, lambda _doing, _done: None)
    gate = GrammarGate(str(model))
    yield gate
    await gate.aclose()


@pytest.mark.asyncio(loop_scope="module")
async def test_what_compiles_is_admitted(gate: GrammarGate) -> None:
    await gate.admit(regex="[a-z]{1,8}")
    await gate.admit(json={"type": "object", "properties": {"a": {"type": "integer"}}})
    await gate.admit(grammar='root ::= "yes" | "no"')
    await gate.admit()


@pytest.mark.asyncio(loop_scope="module")
async def test_what_does_not_compile_is_refused_with_a_reason(gate: GrammarGate) -> None:
    for wrong in ({"regex": "(a"}, {"grammar": "root ::= "}):
        with pytest.raises(GrammarRefused, match=r"\w"):
            await gate.admit(**wrong)


@pytest.mark.asyncio(loop_scope="module")
async def test_what_explodes_is_refused_in_time_while_the_loop_turns(gate: GrammarGate) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    turning = asyncio.ensure_future(turn())
    begun = time.monotonic()
    with pytest.raises(GrammarRefused):
        await gate.admit(regex=EXPLODING)
    took = time.monotonic() - begun
    turning.cancel()
    assert took < grammars.TIME_LIMIT_S + 30
    assert turns > 10 * took, "the event loop was held up"
    # A second try costs nothing, and an honest grammar is served by a new process.
    begun = time.monotonic()
    with pytest.raises(GrammarRefused):
        await gate.admit(regex=EXPLODING)
    assert time.monotonic() - begun < 0.1
    await gate.admit(regex="[0-9]+")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.5])
async def test_who_leaves_while_a_grammar_compiles_leaves_no_verdict_for_the_next(
    gate: GrammarGate, after_s: float
) -> None:
    slow = f"{EXPLODING}{after_s}"
    await gate.admit(regex=f"[0-9]+{after_s}")
    leaving = asyncio.ensure_future(gate.admit(regex=slow))
    await asyncio.sleep(after_s)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    with pytest.raises(GrammarRefused, match=r"\w"):
        await gate.admit(regex=f"(a{after_s}")
    await gate.admit(regex=f"[a-z]+{after_s}")
    with pytest.raises(GrammarRefused, match="compile"):
        await gate.admit(regex=slow)


@pytest.mark.asyncio(loop_scope="module")
async def test_who_leaves_while_the_compiler_starts_leaves_a_whole_one_behind(gate: GrammarGate) -> None:
    await gate.aclose()
    leaving = asyncio.ensure_future(gate.admit(regex="[a-f]+"))
    await asyncio.sleep(0.2)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await gate.admit(regex="[a-f]+")
    with pytest.raises(GrammarRefused, match=r"\w"):
        await gate.admit(regex="(b")
