"""The only place that turns an exception into the bytes of an answer.

The body is OpenAI's error object in the caller's language; the headers are those that its SDKs obey: they read
``retry-after-ms`` and ``retry-after`` first, then ``x-should-retry``, and only then the status. An exception that is
no :class:`DomicileError` becomes ``INTERNAL_ERROR`` and leaves nothing of itself in the answer (R7).
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from serving.errors import DomicileError, Failed, Reason
from serving.gateway import messages

_WORTH_WAITING = frozenset({408, 429, 503})
_RETRIED_BY_SDKS = frozenset({408, 409})


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP response, ready for ASGI."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def problem(error: BaseException, language: str, request_id: str, country: str | None = None) -> Answer:
    """The answer that tells a caller of ``error``, in ``language`` where it is spoken here, else in English."""
    told = _told(error)
    body = _body(told, language)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"content-language", messages.spoken(language).encode()),
        (b"x-request-id", request_id.encode()),
    ]
    if country is not None:
        headers.append((b"x-domicile-country", country.encode()))
    return Answer(told.reason.wire.status, headers + _advice(told), body)


def error_event(error: BaseException, language: str) -> bytes:
    """The JSON object that ends a stream which failed after its head was sent: the same as a body's."""
    return _body(_told(error), language)


def _told(error: BaseException) -> DomicileError:
    return error if isinstance(error, DomicileError) else Failed(Reason.INTERNAL_ERROR)


def _body(error: DomicileError, language: str) -> bytes:
    blanks = {**error.facts}
    if error.retry_after_s is not None:
        blanks["seconds"] = error.retry_after_s
    if error.allow is not None:
        blanks["allow"] = error.allow
    return orjson.dumps(
        {
            "error": {
                "message": messages.text(error.reason, language, blanks, error.param),
                "type": error.reason.wire.type,
                "param": None if error.param is None else messages.clean("param", error.param),
                "code": error.reason.wire.code,
            }
        }
    )


def _advice(error: DomicileError) -> list[tuple[bytes, bytes]]:
    """What the client should do next."""
    wire, seconds = error.reason.wire, error.retry_after_s
    advice = []
    if seconds is not None:
        advice += [(b"retry-after", b"%d" % seconds), (b"retry-after-ms", b"%d" % (seconds * 1000))]
    if seconds is not None and wire.status in _WORTH_WAITING:
        advice.append((b"x-should-retry", b"true"))
    elif wire.status < 500 and wire.status not in _RETRIED_BY_SDKS:
        # A 429 that names no time to wait for, such as a spent quota, is among these.
        advice.append((b"x-should-retry", b"false"))
    if error.allow is not None:
        advice.append((b"allow", error.allow.encode()))
    if wire.status == 401:
        advice.append((b"www-authenticate", b"Bearer"))
    if wire.close:
        advice.append((b"connection", b"close"))
    return advice
