"""What a body may be: rows 19, 20 and the media type of row 24."""

from __future__ import annotations

import gzip
import os
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope

from serving.errors import Reason, Refused
from serving.gateway.body import ClientGone, read_body

JSON = (b"content-type", b"application/json")
GZIP = (b"content-encoding", b"gzip")


def scope(*headers: tuple[bytes, bytes]) -> Scope:
    return {"type": "http", "headers": list(headers)}


def pieces(*bodies: bytes, end: bool = True) -> Receive:
    """A client that sends ``bodies``, then is done, or goes away where ``end`` is false."""
    left = list(bodies)

    async def receive() -> Message:
        if not left:
            return {"type": "http.disconnect"}
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left) or not end}

    return receive


async def never() -> Message:
    raise AssertionError("the body was asked for")


async def refusal(headers: Scope, receive: Receive, max_bytes: int = 100) -> Refused:
    with pytest.raises(Refused) as caught:
        await read_body(headers, receive, max_bytes=max_bytes)
    return caught.value


async def test_a_body_in_one_piece() -> None:
    assert await read_body(scope(JSON), pieces(b"{}"), max_bytes=2) == b"{}"


async def test_a_body_in_many_pieces() -> None:
    assert await read_body(scope(JSON), pieces(b"{", b"", b"1", b"}"), max_bytes=3) == b"{1}"


async def test_a_client_that_leaves_is_neither_refused_nor_failed() -> None:
    for receive in (pieces(), pieces(b"{", end=False)):
        with pytest.raises(ClientGone):
            await read_body(scope(JSON), receive, max_bytes=100)


async def test_row_19_a_declared_length_is_refused_unread() -> None:
    refused = await refusal(scope(JSON, (b"content-length", b"101")), never)
    assert refused.reason is Reason.BODY_TOO_LARGE
    assert refused.facts == {"limit": 100}


async def test_row_19_an_endless_body_is_refused_when_it_passes_the_limit() -> None:
    asked = 0

    async def endless() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x" * 30, "more_body": True}

    refused = await refusal(scope(JSON), endless)
    assert refused.reason is Reason.BODY_TOO_LARGE
    assert refused.facts == {"limit": 100}
    assert asked == 4


async def test_row_20_gzip_is_inflated() -> None:
    text = os.urandom(1 << 20)
    packed = gzip.compress(text)
    received = pieces(packed[:10], packed[10:70_000], packed[70_000:])
    assert await read_body(scope(JSON, GZIP), received, max_bytes=2 << 20) == text


@pytest.mark.parametrize("size", [0, 1, 99, 100])
async def test_row_20_gzip_up_to_the_limit(size: int) -> None:
    packed = gzip.compress(bytes(size))
    assert await read_body(scope(JSON, GZIP), pieces(packed), max_bytes=100) == bytes(size)


async def test_row_20_a_gzip_bomb_is_refused() -> None:
    for size in (101, 1 << 26):
        refused = await refusal(
            scope(JSON, GZIP), pieces(gzip.compress(bytes(size))), max_bytes=100_000 if size > 101 else 100
        )
        assert refused.reason is Reason.BODY_TOO_LARGE


PACKED = gzip.compress(b"{}")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        PACKED[:-1],
        PACKED[:12],
        PACKED + b"x",
        PACKED + PACKED,
        PACKED[:-8] + bytes(8),
        zlib.compress(b"{}"),
    ],
)
async def test_row_20_broken_gzip_is_refused(body: bytes) -> None:
    assert (await refusal(scope(JSON, GZIP), pieces(body))).reason is Reason.INVALID_JSON


async def test_row_20_anything_after_the_member_is_refused_however_far_behind() -> None:
    refused = await refusal(scope(JSON, GZIP), pieces(PACKED + bytes(1 << 20)), max_bytes=2 << 20)
    assert refused.reason is Reason.INVALID_JSON


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"deflate", b"gzip, gzip", b"gzip,", b"gzip;q=1", b"chunked"])
async def test_row_20_other_codings_are_refused_unread(coding: bytes) -> None:
    refused = await refusal(scope(JSON, (b"content-encoding", coding)), never)
    assert refused.reason is Reason.UNSUPPORTED_ENCODING


async def test_row_20_two_codings_are_refused() -> None:
    assert (await refusal(scope(JSON, GZIP, GZIP), never)).reason is Reason.UNSUPPORTED_ENCODING


@pytest.mark.parametrize("coding", [b"identity", b"Identity", b""])
async def test_identity_is_no_coding(coding: bytes) -> None:
    assert await read_body(scope(JSON, (b"content-encoding", coding)), pieces(b"{}"), max_bytes=9) == b"{}"


@pytest.mark.parametrize(
    "media_type",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b'application/json;charset="UTF-8"',
        b"application/json ; charset = utf8 ; v=1",
        b"application/json;",
    ],
)
async def test_row_24_json_in_utf_8_is_read(media_type: bytes) -> None:
    assert await read_body(scope((b"content-type", media_type)), pieces(b"{}"), max_bytes=9) == b"{}"


@pytest.mark.parametrize(
    "media_type",
    [
        b"",
        b"text/plain",
        b"application/jsonp",
        b"application/json/x",
        b"application/json; charset=latin-1",
        b"application/json; charset=utf-8; charset=utf-16",
        b"application/json; charset",
        b"application/json, text/plain",
        b"multipart/form-data; boundary=x",
        b"application/json\xff",
    ],
)
async def test_row_24_other_media_types_are_refused_unread(media_type: bytes) -> None:
    assert (await refusal(scope((b"content-type", media_type)), never)).reason is Reason.UNSUPPORTED_MEDIA_TYPE


async def test_row_24_no_media_type_and_two_are_refused() -> None:
    for headers in (scope(), scope(JSON, JSON)):
        assert (await refusal(headers, never)).reason is Reason.UNSUPPORTED_MEDIA_TYPE


@given(st.binary(max_size=300), st.integers(0, 200))
async def test_arbitrary_bytes_as_gzip_are_read_or_refused(body: bytes, max_bytes: int) -> None:
    try:
        outcome: bytes | Reason = await read_body(scope(JSON, GZIP), pieces(body), max_bytes=max_bytes)
    except Refused as refused:
        outcome = refused.reason
    if isinstance(outcome, bytes):
        assert len(outcome) <= max_bytes
    else:
        assert outcome in (Reason.BODY_TOO_LARGE, Reason.INVALID_JSON)


@given(st.binary(max_size=300), st.integers(0, 300))
async def test_what_was_packed_comes_out_whole(text: bytes, cut: int) -> None:
    packed = gzip.compress(text)
    assert await read_body(scope(JSON, GZIP), pieces(packed[:cut], packed[cut:]), max_bytes=400) == text
