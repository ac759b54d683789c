"""Reads a request's body: the right type, the right coding, never more than allowed.

What can be refused from the headers is refused before a byte is read, so a client that sent
``Expect: 100-continue`` is never invited to send what would be thrown away.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable

from starlette.types import Receive, Scope

from serving.errors import Reason, Refused

GZIP = zlib.MAX_WBITS | 16
STEP_BYTES = 1 << 18
"""Inflated between two turns of the event loop: about a millisecond."""


class ClientGone(Exception):
    """The client left before its request was whole. Nobody is there to be told."""


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int) -> bytes:
    """The request's body, inflated if it came as gzip, at most ``max_bytes`` long either way.

    Raises :class:`Refused` (415 for a type or coding that is not ours, 413, 400 for broken gzip) and
    :class:`ClientGone`.
    """
    compressed = _admit(scope["headers"], max_bytes)
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        body = await _rest(body, receive, max_bytes)
    if len(body) > max_bytes:
        raise Refused(Reason.BODY_TOO_LARGE, limit=max_bytes)
    return await _gunzip(body, max_bytes) if compressed else body


def _admit(headers: Iterable[tuple[bytes, bytes]], max_bytes: int) -> bool:
    """Whether the body is gzip; refuses what the headers alone show to be unwelcome."""
    media_type = coding = None
    length = b"0"
    for name, value in headers:
        if name == b"content-type":
            # Two types would be a body that two readers understand differently.
            media_type = value if media_type is None else b""
        elif name == b"content-encoding":
            coding = value if coding is None else coding + b"," + value
        elif name == b"content-length":
            length = value
    if media_type != b"application/json" and not _is_json(media_type):
        raise Refused(Reason.UNSUPPORTED_MEDIA_TYPE)
    compressed = coding is not None and _is_gzip(coding)
    if int(length) > max_bytes:
        raise Refused(Reason.BODY_TOO_LARGE, limit=max_bytes)
    return compressed


def _is_json(media_type: bytes | None) -> bool:
    if not media_type:
        return False
    essence, *parameters = media_type.lower().split(b";")
    if essence.strip() != b"application/json":
        return False
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip().strip(b'"') not in (b"utf-8", b"utf8"):
            return False
    return True


def _is_gzip(coding: bytes) -> bool:
    match coding.strip().lower():
        case b"gzip" | b"x-gzip":
            return True
        case b"identity" | b"":
            return False
        case _:
            raise Refused(Reason.UNSUPPORTED_ENCODING)


async def _rest(first: bytes, receive: Receive, max_bytes: int) -> bytes:
    body = bytearray(first)
    more = True
    while more and len(body) <= max_bytes:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


async def _gunzip(body: bytes, max_bytes: int) -> bytes:
    """Inflate one gzip member, step by step, so that a bomb costs ``max_bytes`` at most and no stall."""
    inflater = zlib.decompressobj(GZIP)
    inflated = bytearray()
    fed = 0
    while fed < len(body) and not inflater.eof:
        piece = body[fed : fed + STEP_BYTES]
        fed += len(piece)
        while True:
            # One byte more than is allowed is enough to know.
            room = min(STEP_BYTES, max_bytes + 1 - len(inflated))
            try:
                yielded = inflater.decompress(piece, room)
            except zlib.error:
                raise Refused(Reason.INVALID_JSON) from None
            inflated += yielded
            if len(inflated) > max_bytes:
                raise Refused(Reason.BODY_TOO_LARGE, limit=max_bytes)
            if len(yielded) < room:
                break
            piece = inflater.unconsumed_tail
            await asyncio.sleep(0)
    # Cut short, or followed by anything: a second reader might see another body.
    if not inflater.eof or inflater.unused_data or fed < len(body):
        raise Refused(Reason.INVALID_JSON)
    return bytes(inflated)
