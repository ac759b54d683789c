"""What came of a request over a link that may fail: its text so far, and how it ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import httpx

from tests.journeys.bodies import CHAT


@dataclass
class Told:
    """What a client has of an answer."""

    status: int = 0
    text: str = ""
    ends: list[str] = field(default_factory=list)
    """``done``, ``error`` or ``broken``, in the order in which they came."""

    @property
    def whole(self) -> bool:
        return self.ends[:1] == ["done"]


async def told(client: httpx.AsyncClient, question: str, *, stream: bool = True, **fields: Any) -> Told:
    """Ask, and take whatever comes. Never raises for what the network does."""
    found = Told()
    body = {"messages": [{"role": "user", "content": question}], "stream": stream, **fields}
    try:
        async with client.stream("POST", CHAT, json=body) as response:
            found.status = response.status_code
            await (_streamed if stream and found.status == 200 else _whole)(response, found)
    except httpx.TransportError:
        found.ends.append("broken")
    return found


async def _streamed(response: httpx.Response, found: Told) -> None:
    async for line in response.aiter_lines():
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            found.ends.append("done")
        elif line.startswith("data: "):
            event = json.loads(data)
            if "error" in event:
                found.ends.append("error")
            else:
                found.text += event["choices"][0]["delta"].get("content") or ""


async def _whole(response: httpx.Response, found: Told) -> None:
    answer = json.loads(await response.aread())
    if response.status_code == 200:
        found.text = answer["choices"][0]["message"]["content"]
    found.ends.append("done" if response.status_code == 200 else "error")


def look_at(found: Told, right: str) -> None:
    """One end, and nothing before it that should not be there."""
    assert found.ends in (["done"], ["error"], ["broken"], ["done", "broken"]), found
    if found.whole:
        assert found.text == right
    else:
        assert right.startswith(found.text), "what came is how the right answer begins"


async def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    ends = perf_counter() + within_s
    while not condition():
        assert perf_counter() < ends, "it never came to be"
        await asyncio.sleep(0.005)
