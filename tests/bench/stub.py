"""A replica's application without an engine, as fast as Python can be: ``python -m tests.bench.stub``.

Answers with the chunks of vLLM 0.32, byte for byte but for the id, made before anybody asks. The request's
``max_tokens`` says how many, and ``metadata.gap_ms`` how far apart. Each chunk is a write in a turn of the event loop
of its own, as an engine's step gives it: written in one turn, uvloop would send all of them as one packet.
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

HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
WORDS = (" Tallinn", " is", " the", " capital", " of", " Estonia", ",", " and", " its", " largest", " city", ".")
_WANTED = re.compile(rb'"max_tokens": ?(\d+)')
_GAP = re.compile(rb'"gap_ms": ?"(\d+)"')


class Stub(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio.Transport's children.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        wanted, gap = _WANTED.search(self._body), _GAP.search(self._body)
        self._pieces = pieces(int(wanted[1]) if wanted else 1)
        self._gap_s = int(gap[1]) / 1000 if gap else 0.0
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


@cache
def pieces(count: int) -> Sequence[bytes]:
    """What an answer of ``count`` chunks writes: the head with the first chunk, the others, ``[DONE]`` and the end."""
    framed = [_framed(b"data: " + _chunk(index, count) + b"\n\n") for index in range(count)]
    return [HEAD + framed[0], *framed[1:], _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"]


def _chunk(index: int, count: int) -> bytes:
    choice: dict[str, object] = {"index": 0, "delta": {"content": WORDS[index % len(WORDS)]}, "logprobs": None}
    ended = {"finish_reason": "stop", "stop_reason": None} if index == count - 1 else {"finish_reason": None}
    head = {"id": f"chatcmpl-req_{0:032x}", "object": "chat.completion.chunk", "created": 1767225600}
    whole = {**head, "model": "smollm2-135m-instruct", "choices": [{**choice, **ended, "token_ids": None}]}
    return json.dumps(whole, separators=(",", ":")).encode()


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Stub, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main())
