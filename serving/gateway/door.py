"""The country's door: which path leads where, and how an answer or a refusal becomes bytes.

An ASGI application. The generating endpoints are taken straight from ``scope["path"]``, for they are the hot path and
authorisation must not depend on a URL rebuilt from the Host header; everything else is FastAPI's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter

from starlette.types import Message, Receive, Scope, Send

from serving.chat import Answer, House, answer
from serving.errors import DomicileError, Failed, Reason, Refused
from serving.gateway.answers import complete, error_of, usage_of
from serving.gateway.answers.objects import to_bytes
from serving.gateway.body import ClientGone
from serving.gateway.pages import pages
from serving.gateway.problems import error_event, problem
from serving.gateway.request import ENDPOINTS, REQUEST_ID, Request, new_request_id
from serving.gateway.sse import Events, Layer, Refusals, ResponseEvents, Tail, UsageNull, error_frame
from serving.http.protocol import LEAVING, Leaving
from serving.records.telemetry.logs import fault
from serving.replicas.continuation import Told, possible
from serving.replicas.table import Table
from serving.replicas.upstream import Rejected
from serving.types import Endpoint, Prompt, Usage
from tenants.country import Country

log = logging.getLogger(__name__)

Header = tuple[bytes, bytes]

MAX_RESUMED = 2
"""How often one answer is carried on by another replica before its client is told that it was cut off."""


class Door:
    """The public ASGI application of one country."""

    def __init__(self, country: Country, house: House, table: Table, site: str) -> None:
        """
        Args:
            site: where this gateway stands, as ``x-domicile-site`` has it.
        """
        self._country = country
        self._house = house
        self._table = table
        self._ours = signature(country, site)
        self._pages = pages(country, house, table)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        id = new_request_id()
        if scope["path"] not in ENDPOINTS or b"%" in scope["raw_path"]:
            await self._pages({**scope, REQUEST_ID: id}, receive, self._signed(id, send))
            return
        request = Request(id, scope, receive, self._table, self._country)
        if scope["method"] != "POST":
            refusal = Refused(Reason.METHOD_NOT_ALLOWED, allow="POST")
            self._house.record.refused(id, refusal)
            await self._tell(request, refusal, send)
            return
        try:
            await self._generate(request, send)
        except ClientGone:
            return
        except DomicileError as error:
            await self._tell(request, error, send)
        except Exception as error:
            # Where, but not what: an error's text may quote a prompt or an answer (R7).
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = (request.id, place.filename, place.lineno)
            log.error("%s of %s at %s:%s", type(error).__name__, *where, extra=fault(error))
            await self._tell(request, Failed(Reason.INTERNAL_ERROR), send)

    async def _generate(self, request: Request, send: Send) -> None:
        begun = perf_counter()
        async with answer(request, self._house) as reply:
            with _watched(request.scope):
                try:
                    first = await anext(reply.stream, b"")
                except Rejected as rejected:
                    raise _translated(request, reply.prompt, rejected) from rejected
                reply.entry.visit.answered()
                took = _took(begun)
                if reply.prompt.stream:
                    await self._stream(request, reply, first, took, send)
                else:
                    await self._whole(request, reply, first, took, send)

    async def _whole(self, request: Request, reply: Answer, first: bytes, took: Header, send: Send) -> None:
        raw = first + b"".join([data async for data in reply.stream])
        whole = complete(request.endpoint, json.loads(raw), reply.prompt.fields)
        body = to_bytes(whole)
        reply.entry.answering = True
        if usage := whole.get("usage"):
            reply.entry.usage = usage_of(usage)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(body)),
                    *self._headers(request, reply, took),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, request: Request, reply: Answer, first: bytes, took: Header, send: Send) -> None:
        entry = reply.entry
        tail = self._tail(reply)
        events = tail.feed(first)
        told = entry.told = Told() if possible(reply.prompt) else None
        if tail.error is not None:
            # vLLM begins a stream before it has looked at everything; nothing has been sent, so this is a refusal.
            error = self._halted(request, reply, tail)
            if told is None or not isinstance(error, Failed):
                raise error
        if not first:
            raise self._interrupted()
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            *self._headers(request, reply, took),
        ]
        entry.answering = True
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        way = Way(layers(reply.prompt), told, send)
        ended = self._ended(request, reply, tail, await way.relayed(reply.stream, events, tail))
        entry.usage = way.usage(tail)
        for _ in range(MAX_RESUMED):
            if told is None or not isinstance(ended, Failed):
                break
            entry.visit.resumed()
            tail = self._tail(reply)
            async with aclosing(reply.resume(told)) as rest:
                ended = self._ended(request, reply, tail, await way.relayed(rest, Events(b""), tail))
            entry.usage = entry.usage or way.usage(tail)
        entry.error = ended
        if ended is not None:
            event = error_event(ended, request.language)
            way.last += error_frame(request.endpoint, event, tail.sequence)
        await send({"type": "http.response.body", "body": way.last})

    def _tail(self, reply: Answer) -> Tail:
        return Tail(reply.prompt.endpoint, hides_usage=not reply.prompt.include_usage)

    def _ended(self, request: Request, reply: Answer, tail: Tail, error: DomicileError | None) -> DomicileError | None:
        """What was wrong with a stream that has ended, if anything."""
        if error is None and tail.error is not None:
            return self._halted(request, reply, tail)
        if error is None and not tail.done:
            return self._interrupted()
        return error

    def _halted(self, request: Request, reply: Answer, tail: Tail) -> DomicileError:
        assert tail.error is not None
        context = self._table.longest_context()
        return error_of(request.endpoint, tail.error, reply.prompt.fields, context_length=context)

    def _interrupted(self) -> DomicileError:
        return Failed(Reason.STREAM_INTERRUPTED, country=self._country.code.upper())

    def _signed(self, id: str, send: Send) -> Send:
        """``send``, with the headers that every answer of ours has."""
        sign = [(b"x-request-id", id.encode()), *self._ours]
        begun = perf_counter()

        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], _took(begun), *sign]
            await send(message)

        return signed

    def _headers(self, request: Request, reply: Answer, took: Header) -> list[Header]:
        receipt = (b"x-domicile-receipt", reply.entry.receipt.encode())
        return [(b"x-request-id", request.id.encode()), receipt, took, *self._ours]

    async def _tell(self, request: Request, error: DomicileError, send: Send) -> None:
        told = problem(error, request.language, request.id)
        await send({"type": "http.response.start", "status": told.status, "headers": [*told.headers, *self._ours]})
        await send({"type": "http.response.body", "body": told.body})


def signature(country: Country, site: str) -> list[Header]:
    """The headers that say where an answer comes from."""
    return [
        (b"x-domicile-country", country.code.encode()),
        (b"x-domicile-site", site.encode()),
    ]


def layers(prompt: Prompt) -> list[Layer]:
    """The stream's layers for what the client asked: each mends one thing, most requests need one."""
    if prompt.endpoint is Endpoint.RESPONSES:
        return [ResponseEvents(prompt.fields)]
    found: list[Layer] = [UsageNull()] if prompt.include_usage else []
    if prompt.endpoint is Endpoint.CHAT and prompt.fields.get("logprobs"):
        found.append(Refusals())
    return found


@dataclass(slots=True)
class Way:
    """From a replica's stream to the client, whose head has been sent."""

    mending: list[Layer]
    told: Told | None
    """Kept for carrying the answer on, where that is possible."""
    send: Send
    last: bytes = b""
    """What is left to send, in one packet with the end of the answer."""

    def usage(self, tail: Tail) -> Usage | None:
        """What the stream that ended told of its cost."""
        responses = (layer.usage for layer in self.mending if isinstance(layer, ResponseEvents))
        return tail.usage or next(responses, None)

    async def relayed(self, stream: AsyncGenerator[bytes, None], events: Events, tail: Tail) -> DomicileError | None:
        """Send a stream on until its end, ``events`` first. Returns what went wrong on the way."""
        mending, told, send = self.mending, self.told, self.send
        try:
            while True:
                if told is not None:
                    told.add(events)
                for layer in mending:
                    events = layer.feed(events)
                if tail.done:
                    self.last += events
                elif events:
                    await send({"type": "http.response.body", "body": events, "more_body": True})
                if tail.error is not None:
                    return None
                data = await anext(stream, b"")
                if not data:
                    return None
                events = tail.feed(data)
        except DomicileError as error:
            return error


def _took(begun: float) -> Header:
    return b"openai-processing-ms", b"%d" % ((perf_counter() - begun) * 1000)


def _translated(request: Request, prompt: Prompt, rejected: Rejected) -> DomicileError:
    try:
        payload = json.loads(rejected.body)
    except ValueError:
        return Failed(Reason.INTERNAL_ERROR)
    return error_of(
        request.endpoint, payload, prompt.fields, context_length=rejected.context_length, status=rejected.status
    )


class _watched:  # noqa: N801 - read as a statement: with _watched(scope)
    """Cancels the block when the client leaves, so that its generation is aborted in the engine.

    The block then ends with :class:`ClientGone`; a cancellation that is somebody else's stays one.
    """

    __slots__ = ("_leaving", "_task")

    def __init__(self, scope: Scope) -> None:
        self._leaving: Leaving = scope["extensions"][LEAVING]

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._leaving.tell = self._cancel
        if self._leaving.gone:
            self._cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._leaving.tell = _nobody
        if self._leaving.gone and kind is asyncio.CancelledError and self._task.uncancel() == 0:
            raise ClientGone

    def _cancel(self) -> None:
        self._task.cancel()


def _nobody() -> None:
    """Stands in where the answer has ended and nobody needs to know."""
