"""One answer of an OpenAI endpoint, read from whatever pieces the network gives.

No input or output happens here: :mod:`loadtests.client.wire` feeds it. Every event of a stream is parsed: orjson takes
about a microsecond for one, a tenth of what its way through the kernel costs, and a search for markers would miscount
what it does not know.
"""

from __future__ import annotations

from typing import Any

import httptools
import orjson

from loadtests.client.frames import Frames
from loadtests.client.pace import Pace
from loadtests.record import Outcome

_DONE = b"[DONE]"
_ENDS = {"response.completed", "response.incomplete", "response.failed"}
_SERVICE_UNAVAILABLE = 503
_SOME = 1 << 24
"""Bytes of a whole body that are kept; more is no answer."""


class Answer:
    """What came of one request, while it comes and after.

    Times are those of the clock that the caller of :meth:`feed` reads.
    """

    def __init__(self, *, stream: bool) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.outcome = Outcome.FAILED
        self.code = ""
        self.terminals = 0
        self.first: float | None = None
        self.ended: float | None = None
        """When the first terminal came, or when nothing more could."""
        self.usage: dict[str, Any] = {}
        self.finish_reason = ""
        self.text: list[str] = []
        """The answer's text, in the pieces in which it came."""
        self.pace = Pace()
        self.complete = False
        """The HTTP message is over."""
        self.reusable = False
        """The connection may carry another request."""
        self._asked_stream = stream
        self._frames: Frames | None = None
        self._whole = bytearray()
        self._now = 0.0
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes, now: float) -> bool:
        """Take one packet that was received at ``now``. True when nothing more is expected."""
        self._now = now
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.blame("malformed-http", now)
            self.complete = True
        self.pace.arrived(now)
        return self.complete

    def lost(self, now: float) -> None:
        """The connection ended: in the middle of the message, or as its end where its length was not told."""
        if self.complete:
            return
        self._now = now
        framed = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        if self.status and not framed:
            self.on_message_complete()
        elif not self.terminals:
            self.blame("lost-connection", now)
            self.terminals = 1
        self.reusable = False

    def blame(self, code: str, now: float, outcome: Outcome = Outcome.FAILED) -> None:
        """It went wrong, or was left. The first reason is kept, and nothing that is over goes wrong any more."""
        if not self.code and not self.terminals:
            self.code, self.outcome = code, outcome
        if self.ended is None:
            self.ended = now

    @property
    def output_tokens(self) -> int:
        """As the service counted them, else how many events bore content."""
        return int(self.usage.get("completion_tokens") or self.usage.get("output_tokens") or self.pace.events)

    @property
    def prompt_tokens(self) -> int:
        return int(self.usage.get("prompt_tokens") or self.usage.get("input_tokens") or 0)

    @property
    def cached_tokens(self) -> int:
        details = self.usage.get("prompt_tokens_details") or self.usage.get("input_tokens_details") or {}
        return int(details.get("cached_tokens") or 0)

    @property
    def retry_after_s(self) -> float | None:
        try:
            return float(self.headers[b"retry-after"])
        except (KeyError, ValueError):
            return None

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        kind = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if self.status == 200 and self._asked_stream and kind == b"text/event-stream":
            self._frames = Frames()

    def on_body(self, body: bytes) -> None:
        if self._frames is None:
            if len(self._whole) < _SOME:
                self._whole += body
            return
        for data in self._frames.feed(body):
            self._event(data)

    def on_message_complete(self) -> None:
        if self.status < 200:  # informational: the answer is still to come
            self.headers.clear()
            return
        self.complete = True
        self.reusable = self._parser.should_keep_alive()
        if self._frames is None:
            self._read_whole()
        elif not self.terminals:
            # A proper end of the message that ends no answer: whoever wrote it forgot about it.
            self.blame("no-end", self._now)

    def _event(self, data: bytes) -> None:
        if self.terminals:
            self.terminals += 1  # what comes after the end makes it no end
            return
        if data == _DONE:
            self._end()
            return
        try:
            event = orjson.loads(data)
            if event.get("error") or event.get("type") == "error":
                self._error(event.get("error") or event)
            elif "choices" in event:
                self._chunk(event)
            elif str(event["type"]).startswith("response."):
                self._response_event(event)
            else:
                self._blame_once("unknown-event")
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            self._blame_once("malformed-json")

    def _chunk(self, event: dict[str, Any]) -> None:
        for choice in event["choices"]:
            delta = choice.get("delta")
            text = (choice.get("text") or "") if delta is None else (delta.get("content") or _aside(delta))
            if text:
                self._said(text)
            if choice.get("finish_reason"):
                self.finish_reason = choice["finish_reason"]
        if usage := event.get("usage"):
            self.usage = usage

    def _response_event(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind.endswith(".delta"):
            if text := event["delta"]:
                self._said(text)
        elif kind in _ENDS:
            response = event["response"]
            self.usage = response.get("usage") or {}
            self.finish_reason = response.get("status") or ""
            if kind == "response.failed":
                self._error(response.get("error") or {})
            else:
                self._end()

    def _said(self, text: str) -> None:
        self.pace.event(len(text))
        if self.first is None:
            self.first = self._now
        self.text.append(text)

    def _error(self, error: Any) -> None:
        self._blame_once(_code(error) or "error-frame")
        self.terminals += 1

    def _end(self) -> None:
        self.terminals += 1
        self.ended = self._now
        if not self.code:
            self.outcome = Outcome.FINISHED

    def _blame_once(self, code: str) -> None:
        self.blame(code, self._now)

    def _read_whole(self) -> None:
        """A body that is no stream: an answer, a refusal, or nothing that makes sense."""
        kind = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        body: Any = None
        try:
            body = orjson.loads(self._whole)
        except ValueError:
            self._blame_once(_no_json(kind, self._whole))
        else:
            self._judge(body, kind)
        self.terminals += 1

    def _judge(self, body: Any, kind: bytes) -> None:
        error = body.get("error") if isinstance(body, dict) else None
        if self.status != 200:
            # Only who says why has refused.
            refused = bool(error) and (400 <= self.status < 500 or self.status == _SERVICE_UNAVAILABLE)
            code = _code(error) or f"http-{self.status}"
            self.blame(code, self._now, Outcome.REFUSED if refused else Outcome.FAILED)
        elif error:
            self._blame_once(_code(error) or "error-body")
        elif self._asked_stream or kind != b"application/json":
            self._blame_once("content-type")
        else:
            self._answered(body)

    def _answered(self, body: Any) -> None:
        try:
            text, self.finish_reason = _whole_answer(body)
            self.usage = body.get("usage") or {}
        except (KeyError, TypeError, AttributeError, IndexError):
            self._blame_once("no-answer")
            return
        if text:
            self.text.append(text)
        self.first = self.ended = self._now
        self.outcome = Outcome.FINISHED


def _aside(delta: dict[str, Any]) -> str:
    """What was generated beside the content: thoughts, and the calls of tools."""
    thought: str = delta.get("reasoning_content") or delta.get("reasoning") or ""
    calls = (call.get("function") or {} for call in delta.get("tool_calls") or ())
    return thought + "".join((call.get("name") or "") + (call.get("arguments") or "") for call in calls)


def _code(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)[:80] if error else ""
    return str(error.get("code") or error.get("type") or "")


def _no_json(kind: bytes, body: bytearray) -> str:
    html = kind == b"text/html" or body[:15].lstrip().lower().startswith((b"<!doctype", b"<html"))
    return "html" if html else "malformed-json" if kind == b"application/json" else "content-type"


def _whole_answer(body: dict[str, Any]) -> tuple[str, str]:
    """The text and the finish reason of an answer in one piece, of any of the three endpoints."""
    if "output" in body:
        parts = [part for item in body["output"] for part in item.get("content") or ()]
        return "".join(part.get("text") or "" for part in parts), str(body["status"])
    choice = body["choices"][0]
    message = choice.get("message")
    text = choice["text"] if message is None else message.get("content") or _aside(message)
    return text, choice.get("finish_reason") or ""
