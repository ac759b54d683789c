"""A replica's application without an engine: ``python -m tests.bench.stub application|bare``.

Answers with the chunks of vLLM 0.32, byte for byte but for the id, made before anybody asks. The request's
``max_tokens`` says how many, and ``metadata.gap_ms`` how far apart. Each chunk is a write of its own, as an engine's
step gives it.

``application`` is served as vLLM's own is: ASGI, over uvicorn. ``bare`` is a protocol on the socket, several times as
fast as any replica can be, and hands out chunks in turn to all its clients.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Sequence
from functools import cache
from typing import cast

import httptools
import uvloop
from starlette.types import Receive, Scope, Send

from serving.http.listener import Listener

HOST = "127.0.0.1"
HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
END = {"type": "http.response.body", "body": b""}
DONE = b"data: [DONE]\n\n"
WORDS = (" Tallinn", " is", " the", " capital", " of", " Estonia", ",", " and", " its", " largest", " city", ".")
ASKS = b'"include_usage":true'
USAGE = (
    b'data: {"id":"chatcmpl-req_00000000000000000000000000000000","object":"chat.completion.chunk",'
    b'"created":1767225600,"model":"smollm2-135m-instruct","choices":[],"usage":{"prompt_tokens":31,"total_tokens":95,'
    b'"completion_tokens":64,"prompt_tokens_details":{"cached_tokens":16}}}\n\n'
)
"""What an answer says last to who asked for it."""
_WANTED = re.compile(rb'"max_tokens": ?(\d+)')
_GAP = re.compile(rb'"gap_ms": ?"(\d+)"')


async def application(_scope: Scope, receive: Receive, send: Send) -> None:
    """The stub as ASGI."""
    body = (await receive())["body"]
    count, gap_s = asked(body)
    await send(START)
    for event in (*events(count), *([USAGE] if ASKS in body else []), DONE):
        await send({"type": "http.response.body", "body": event, "more_body": True})
        if gap_s:
            await asyncio.sleep(gap_s)
    await send(END)


class Bare(asyncio.Protocol):
    """One connection of the stub that is no application."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in all but their base class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        count, self._gap_s = asked(self._body)
        self._pieces = pieces(count, usage=ASKS in self._body)
        self._step(0)

    def _step(self, index: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(self._pieces[index])
        if index + 1 == len(self._pieces):
            return
        if self._gap_s:
            self._loop.call_later(self._gap_s, self._step, index + 1)
        else:
            self._loop.call_soon(self._step, index + 1)


def asked(body: bytes) -> tuple[int, float]:
    """How many chunks a request wants, and how many seconds apart."""
    wanted, gap = _WANTED.search(body), _GAP.search(body)
    return int(wanted[1]) if wanted else 1, int(gap[1]) / 1000 if gap else 0.0


@cache
def events(count: int) -> Sequence[bytes]:
    """The events of an answer of ``count`` chunks, but for the last, ``[DONE]``."""
    return [b"data: " + _chunk(index, count) + b"\n\n" for index in range(count)]


@cache
def pieces(count: int, *, usage: bool = False) -> Sequence[bytes]:
    """What such an answer writes: the head with the first chunk, the others, ``[DONE]`` and the end."""
    first, *others = map(_framed, (*events(count), *([USAGE] if usage else [])))
    return [HEAD + first, *others, _framed(DONE) + b"0\r\n\r\n"]


def _chunk(index: int, count: int) -> bytes:
    choice: dict[str, object] = {"index": 0, "delta": {"content": WORDS[index % len(WORDS)]}, "logprobs": None}
    ended = {"finish_reason": "stop", "stop_reason": None} if index == count - 1 else {"finish_reason": None}
    head = {"id": f"chatcmpl-req_{0:032x}", "object": "chat.completion.chunk", "created": 1767225600}
    whole = {**head, "model": "smollm2-135m-instruct", "choices": [{**choice, **ended, "token_ids": None}]}
    return json.dumps(whole, separators=(",", ":")).encode()


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main(kind: str) -> None:
    loop = asyncio.get_running_loop()
    if kind == "bare":
        server = await loop.create_server(Bare, HOST, 0)
        port = server.sockets[0].getsockname()[1]
    else:
        listener = Listener(application, host=HOST, port=0, guarded=False)
        await listener.start()
        port = listener.port
    print(json.dumps({"port": port}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
