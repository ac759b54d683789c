"""The fake engine's ASGI application: vLLM's paths, statuses and bodies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from serving.engine.fake import completions, metrics, responses
from serving.engine.fake.generation import Generate
from serving.engine.fake.reading import Ask, EngineRefusal, prompt_words, read
from serving.engine.fake.text import token_id
from serving.engine.port import METRICS, EngineDead, EngineFacts
from serving.types import Endpoint

_PREFIX = {Endpoint.CHAT: "chatcmpl-", Endpoint.COMPLETIONS: "cmpl-"}


def build(
    facts: EngineFacts, generate: Generate, check: Callable[[], Awaitable[None]], tell: Callable[[], str]
) -> Starlette:
    """``check`` raises :class:`EngineDead` when the engine is; ``generate`` is its core; ``tell`` has its metrics."""

    async def models(_: Request) -> Response:
        card = {"id": facts.model, "object": "model", "created": 0, "owned_by": "vllm", "root": facts.model}
        card |= {"parent": None, "max_model_len": facts.context_length, "permission": []}
        return JSONResponse({"object": "list", "data": [card]})

    async def tokenize(request: Request) -> Response:
        body = await request.json()
        words = prompt_words(Endpoint.CHAT if "messages" in body else Endpoint.COMPLETIONS, body)
        tokens = [token_id(word, facts.vocab_size) for word in words]
        answer = {"count": len(words), "max_model_len": facts.context_length, "tokens": tokens, "token_strs": None}
        return JSONResponse(answer)

    async def health(_: Request) -> Response:
        try:
            await check()
        except EngineDead:
            return Response(status_code=503)
        return Response()

    async def told(_: Request) -> Response:
        return Response(tell(), media_type=metrics.CONTENT_TYPE)

    return Starlette(
        routes=[
            *(Route(each, _Generating(each, facts, generate), methods=["POST"]) for each in Endpoint),
            Route("/v1/models", models),
            Route("/tokenize", tokenize, methods=["POST"]),
            Route("/health", health),
            Route(METRICS, told),
        ]
    )


class _Generating:
    """One generating path. A client that leaves cancels the work, streaming or not."""

    def __init__(self, endpoint: Endpoint, facts: EngineFacts, generate: Generate) -> None:
        self._endpoint = endpoint
        self._facts = facts
        self._generate = generate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.json()
        try:
            ask = read(self._endpoint, body, self._facts)
        except EngineRefusal as refusal:
            await _refuse(refusal)(scope, receive, send)
            return
        request_id = self._request_id(request, body)
        if body.get("stream"):
            await _until_gone(receive, _send_stream(self._stream(ask, request_id), send))
        else:
            await _until_gone(receive, self._send_answer(ask, request_id, scope, receive, send))

    def _request_id(self, request: Request, body: dict[str, Any]) -> str:
        """vLLM takes ``X-Request-Id`` for completions, and ``request_id`` of the body for responses."""
        if self._endpoint is Endpoint.RESPONSES:
            return body.get("request_id") or f"resp_{uuid4().hex}"
        return _PREFIX[self._endpoint] + (request.headers.get("x-request-id") or uuid4().hex)

    def _stream(self, ask: Ask, request_id: str) -> AsyncGenerator[bytes, None]:
        if self._endpoint is Endpoint.RESPONSES:
            return responses.stream(self._generate, ask, request_id, self._facts.model)
        return completions.stream(self._generate, self._endpoint, ask, request_id, self._facts.model)

    async def _send_answer(self, ask: Ask, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._endpoint is Endpoint.RESPONSES:
                answer = await responses.answer(self._generate, ask, request_id, self._facts.model)
            else:
                answer = await completions.answer(self._generate, self._endpoint, ask, request_id, self._facts.model)
            response: Response = JSONResponse(answer)
        except EngineRefusal as refusal:
            response = _refuse(refusal)
        except EngineDead as death:
            response = _refuse(EngineRefusal(str(death), "InternalServerError", 500))
        await response(scope, receive, send)


def _refuse(refusal: EngineRefusal) -> Response:
    return JSONResponse(refusal.body, status_code=refusal.status)


async def _send_stream(frames: AsyncGenerator[bytes, None], send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async with aclosing(frames):
        async for frame in frames:
            await send({"type": "http.response.body", "body": frame, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, or as much of it as the client stays for."""

    async def gone() -> None:
        message: Message = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await receive()

    working, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)
    if not working.cancelled():
        working.result()
