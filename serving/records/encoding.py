"""Bytes and text, with one spelling for everything: what has two could be signed as one and read as the other."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import NoReturn

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_base64url(raw: bytes) -> bytes:
    """Without padding, as RFC 7515 wants it."""
    return urlsafe_b64encode(raw).rstrip(b"=")


def from_base64url(text: bytes) -> bytes:
    """Raises ``ValueError`` for padding, foreign characters, and spellings that an encoder does not write."""
    raw = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    if to_base64url(raw) != text:
        raise ValueError("not canonical base64url")
    return raw


def json_object(raw: bytes) -> dict[str, object]:
    """A JSON object. Raises ``ValueError`` for anything else, for equal keys, ``NaN`` and endless nesting."""
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if type(value) is not dict:
        raise ValueError("not a JSON object")
    return value


def stamp(milliseconds: int) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(stamped: str) -> int:
    """What :func:`stamp` was given."""
    return (datetime.fromisoformat(stamped) - _EPOCH) // timedelta(milliseconds=1)


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands there twice")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
