"""Layers over a replica's bytes, between the two sockets of a stream. One duty each.

They are plain objects on a path that is walked for every token: bytes in, bytes out, and no JSON is parsed but that
of the few events that need it. Only :class:`Tail` takes what the network gives; the others take the whole events
that it lets through, and the type :data:`Events` says so.

Looking for a marker among bytes is safe where the marker holds an unescaped quote or a line feed, since inside a
JSON string a quote follows a backslash and a line feed is written ``\\n``: no answer's text can contain one. Keys are
no answer's text either, but for the tokens in ``top_logprobs`` of completions, whose values are numbers.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import NewType, Protocol

from serving.gateway.answers.objects import Json, to_bytes
from serving.gateway.answers.responses import event as mended_event
from serving.gateway.answers.spent import usage_of
from serving.types import Endpoint, Usage

Events = NewType("Events", bytes)
"""Zero or more whole events, each with the empty line that ends it."""

_END = b"\n\n"
_DONE = b"data: [DONE]\n\n"
_FINAL = re.compile(rb"event: response\.(?:completed|incomplete|failed)\n")
_ERROR = b'data: {"error"'
_ABORTED = b'"finish_reason":"abort"'
_STOPPED = {"error": {"message": "The engine was stopped.", "type": "ServiceUnavailableError", "code": 503}}
_USAGE = b'"usage":{'
_LOGPROBS = b'"logprobs":{"content":'
_ORDINARY = (
    b'"finish_reason":null,"token_ids":null}]}\n\n',
    b'"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}\n\n',
)
_SEQUENCE = re.compile(rb'"sequence_number":(\d+)')


class Layer(Protocol):
    """One step between a replica's stream and the client's."""

    def feed(self, events: Events, /) -> Events: ...


class Tail:
    """Lets whole events through, and knows how the stream stands.

    A half event waits for its other half, so that a replica that dies leaves no torn frame behind and an error frame
    can always follow. Nothing passes after the end, nor from an error on. Every stream of chunks tells its usage near
    its end, and who did not ask for it does not get it.
    """

    __slots__ = ("_held", "_hides", "_last", "_ordinary", "_responses", "done", "error", "usage")

    def __init__(self, endpoint: Endpoint, *, hides_usage: bool = False) -> None:
        self.usage: Usage | None = None
        """What a stream of chunks cost, once it has said so."""
        self._hides = hides_usage
        self.done = False
        """The stream came to its proper end."""
        self.error: Json | None = None
        """What the engine said when it failed halfway: for ``answers.error_of``."""
        self._responses = endpoint is Endpoint.RESPONSES
        self._ordinary = _is_delta if self._responses else _is_chunk
        self._held = b""
        self._last = b""

    def feed(self, data: bytes, /) -> Events:
        if self.done or self.error is not None:
            return Events(b"")
        if self._held:
            data = self._held + data
        elif self._ordinary(data):
            self._last = data
            return Events(data)
        end = data.rfind(_END) + 2
        if end < 2:
            self._held = data
            return Events(b"")
        self._held = data[end:]
        events = data[:end]
        if _ERROR in events or _ABORTED in events:
            events = self._before_error(events)
        elif self._responses:
            self.done = _FINAL.search(events) is not None
        else:
            self.done = events.endswith(_DONE)
            if _USAGE in events:
                events = b"".join([event for event in _each(events) if self._passes(event)])
        self._last = events or self._last
        return Events(events)

    def _passes(self, event: bytes) -> bool:
        if _USAGE not in event:
            return True
        self.usage = usage_of(json.loads(event[len(b"data: ") :])["usage"])
        return not self._hides

    @property
    def sequence(self) -> int:
        """The ``sequence_number`` that the next event of a Responses stream would have."""
        numbers = _SEQUENCE.findall(self._last)
        return int(numbers[-1]) + 1 if numbers else 0

    def _before_error(self, events: bytes) -> bytes:
        passed = b""
        for event in _each(events):
            if event.startswith(_ERROR):
                self.error = json.loads(event[len(b"data: ") :])
                break
            if _ABORTED in event:
                self.error = _STOPPED
                break
            passed += event
        return passed


class UsageNull:
    """For a client that asked for usage: ``usage: null`` in every chunk that has none."""

    __slots__ = ()

    def feed(self, events: Events, /) -> Events:
        if events.find(_USAGE) < 0:
            return Events(events.replace(b"}\n\n", b',"usage":null}\n\n'))
        return Events(b"".join(map(self._event, _each(events))))

    def _event(self, event: bytes) -> bytes:
        return event if _USAGE in event else event.replace(b"}\n\n", b',"usage":null}\n\n')


class Refusals:
    """For a client that asked for log probabilities of a chat: vLLM leaves ``logprobs.refusal`` out."""

    __slots__ = ()

    def feed(self, events: Events, /) -> Events:
        return Events(events.replace(_LOGPROBS, b'"logprobs":{"refusal":null,"content":'))


class ResponseEvents:
    """Mends the events of ``/v1/responses`` that carry a response, an item or a part. Deltas pass as they are."""

    __slots__ = ("_fields", "usage")

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = fields
        self.usage: Usage | None = None
        """What the stream cost, once it has said so."""

    def feed(self, events: Events, /) -> Events:
        if events.count(_END) == events.count(b".delta\ndata: "):
            return events
        return Events(b"".join(map(self._event, _each(events))))

    def _event(self, event: bytes) -> bytes:
        head, _, data = event.partition(b"\ndata: ")
        if not data or head.endswith(b".delta"):
            return event
        payload = mended_event(json.loads(data), self._fields, int(time.time()))
        if usage := payload.get("response", {}).get("usage"):
            self.usage = usage_of(usage)
        return _named(payload)


def error_frame(endpoint: Endpoint, body: bytes, sequence: int = 0) -> bytes:
    """The last event of a stream that failed halfway. ``body`` is what an error response would hold.

    For Responses it is OpenAI's ``error`` event with ``sequence`` as its number; the nested ``error`` is that of Open
    Responses, and is what makes the SDKs raise.
    """
    if endpoint is not Endpoint.RESPONSES:
        return b"data: " + body.replace(b"\n", b"") + _END
    error = json.loads(body)["error"]
    flat = {name: error.get(name) for name in ("code", "message", "param")}
    return _named({"type": "error", **flat, "sequence_number": sequence, "error": error})


def _is_chunk(data: bytes) -> bool:
    """One whole chunk from the middle of an answer, as vLLM writes nearly all: recognised by its ends, unsearched."""
    return data.find(b"\n") == len(data) - 2 and data.endswith(_ORDINARY)


def _is_delta(data: bytes) -> bool:
    """One whole delta event, likewise."""
    head = data.find(b"\n")
    return data.endswith(b".delta", 0, head) and data.find(b"\n", head + 1) == len(data) - 2 and data.endswith(_END)


def _each(events: bytes) -> list[bytes]:
    return [event + _END for event in events.split(_END)[:-1]]


def _named(payload: Json) -> bytes:
    return f"event: {payload['type']}\ndata: ".encode() + to_bytes(payload) + _END
