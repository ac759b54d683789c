"""A request that is turned away is answered with that alone, whatever the application had begun to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import pytest
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.engine.turnaway import OVER_SHARE, OVERLOADED, Turnaway, TurnedAway, foreseeing, heeding, read, turn_away

AWAY = Turnaway(OVER_SHARE, "over_share", 2.5)
Generate = Callable[[], Awaitable[str]]


async def asked(app: ASGIApp) -> tuple[int, bytes]:
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    await heeding(app)(scope, receive, send)
    assert [one["type"] for one in sent].count("http.response.start") == 1
    assert not sent[-1].get("more_body")
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:])


def streaming(generate: Generate) -> ASGIApp:
    """Begins its answer before it knows whether there is one, as vLLM's application does."""

    async def words() -> Any:
        try:
            yield f"data: {await generate()}\n\n"
        except TurnedAway:
            yield 'data: {"error": "no"}\n\n'
        yield "data: [DONE]\n\n"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(words())(scope, receive, send)

    return app


def whole(generate: Generate) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = JSONResponse({"text": await generate()})
        except TurnedAway:
            answer = JSONResponse({"error": "no"}, 500)
        await answer(scope, receive, send)

    return app


async def refuses() -> str:
    turn_away(AWAY)
    raise TurnedAway


async def serves() -> str:
    return "hello"


@pytest.mark.parametrize("kind", [streaming, whole])
async def test_what_is_turned_away_is_answered_with_that_alone(kind: Callable[[Generate], ASGIApp]) -> None:
    status, body = await asked(kind(refuses))
    assert status == OVER_SHARE
    assert read(status, body) == AWAY
    assert json.loads(body)["error"]["code"] == OVER_SHARE


@pytest.mark.parametrize("kind", [streaming, whole])
async def test_what_is_served_passes_unchanged(kind: Callable[[Generate], ASGIApp]) -> None:
    status, body = await asked(kind(serves))
    assert status == 200
    assert b"hello" in body


async def test_what_is_foreseen_is_answered_without_asking_and_the_body_is_read() -> None:
    asks: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asks.append(scope["path"])

    pieces = [b"{", b"}"]

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    foreseen = {"/busy": AWAY}
    for path in ("/busy", "/free"):
        await foreseeing(app, lambda scope: nullcontext(foreseen.get(scope["path"])))({"path": path}, receive, send)
    assert asks == ["/free"]
    assert read(sent[0]["status"], sent[1]["body"]) == AWAY
    assert not pieces


async def test_what_has_begun_is_not_taken_back() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        turn_away(AWAY)
        await send({"type": "http.response.body", "body": b" last"})

    assert await asked(app) == (200, b"first last")


async def test_one_that_is_turned_away_leaves_its_neighbours_alone() -> None:
    answers = await asyncio.gather(asked(streaming(refuses)), asked(streaming(serves)))
    assert [status for status, _ in answers] == [OVER_SHARE, 200]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, AWAY.body()),
        (OVERLOADED, b"busy"),
        (OVERLOADED, b'{"error": {"message": "draining"}}'),
        (OVER_SHARE, b"[]"),
    ],
)
def test_other_answers_are_no_turnaways(status: int, body: bytes) -> None:
    assert read(status, body) is None


def test_nobody_is_turned_away_outside_a_call() -> None:
    turn_away(AWAY)
