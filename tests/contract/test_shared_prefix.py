"""A system prompt of usual length is computed once for all callers of an organisation, not once for each."""

from __future__ import annotations

import httpx
import pytest

from serving.engine.port import Engine
from tests.contract.conftest import door
from tests.contract.test_engine import CHAT, ask, question
from tests.loopback import listening

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.engine]

SYSTEM = "You answer citizens' questions about taxes, kindly and in short sentences. " * 6


async def test_most_of_it_is_found_in_the_cache(vllm_engine: Engine) -> None:
    async def cached(asked: str) -> tuple[int, int]:
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]
        async with listening(door(vllm_engine.app)) as base, httpx.AsyncClient(base_url=base, timeout=60) as client:
            usage = (await ask(client, CHAT, question(vllm_engine, CHAT, messages=messages, max_tokens=2)))["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]

    assert (await cached("When is it due?"))[0] == 0
    found, prompt = await cached("What if I am late?")
    assert prompt < 128, "vLLM's own blocks on CPUs would hold none of it"
    assert found >= 64
