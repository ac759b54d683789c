"""HTTP/1.1 at the public door: uvicorn's httptools protocol, with limits and without its soft spots.

llhttp is strict about framing (measured: bare CR or LF, folded headers, a length beside a coding, bad chunks), but
limits nothing and lets a few heads pass that no client of ours sends; :meth:`GuardedProtocol._fault` refuses those.
What else is mended here is said at the place. Requirements are RFC 9110 and 9112.

Cost: one timer a connection, none a request; nothing a written chunk.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import re
import secrets
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from serving.errors import Reason

_INFORMATIONAL = b"HTTP/1.1 1"
HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?[ \t]*")

LEAVING = "domicile.leaving"
"""The extension of a request's scope under which its :class:`Leaving` is."""

Problem = Callable[[Reason, Mapping[bytes, bytes]], tuple[int, list[tuple[bytes, bytes]], bytes]]
"""Makes an answer's status, headers and body from a reason and the request's raw headers so far. Never raises.

Headers that it leaves out and that every refusal has are added: content-length, connection, x-request-id.
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """What a client may take of us before it is known. Times are coarse: they end up to a quarter late."""

    headers: int = 100
    header_line_bytes: int = 16 * 1024
    head_bytes: int = 64 * 1024
    target_bytes: int = 8 * 1024
    pipelined: int = 16
    head_s: float = 10.0
    keep_alive_s: float = 75.0
    """Longer than clients keep idle connections, so that it is they who close them."""
    body_idle_s: float = 20.0
    body_s: float = 120.0
    stall_s: float = 60.0
    """How long a client may take nothing of its answer."""
    linger_s: float = 2.0
    linger_bytes: int = 16 * 1024 * 1024

    @property
    def tick_s(self) -> float:
        return min(self.head_s, self.keep_alive_s, self.body_idle_s, self.body_s, self.stall_s) / 4


DEFAULT_LIMITS = ListenerLimits()

MESSAGES = {
    Reason.MALFORMED_HTTP: "The request is not valid HTTP/1.1.",
    Reason.INVALID_HOST: "The request must have exactly one valid Host header, and a path as its target.",
    Reason.HEADERS_TOO_LARGE: "The request has too many or too large headers.",
    Reason.REQUEST_TIMEOUT: "The request did not arrive in time.",
}


def plain_problem(reason: Reason, _headers: Mapping[bytes, bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The :data:`Problem` of a listener that knows no languages."""
    message = MESSAGES.get(reason, "The server had an error while processing your request.")
    error = {"message": message, "type": reason.wire.type, "param": None, "code": reason.wire.code}
    return reason.wire.status, [(b"content-type", b"application/json")], json.dumps({"error": error}).encode()


class Leaving:
    """Whether a request's client has left, and who is to be told when it does.

    Waiting for ``http.disconnect`` says the same, and costs a task for every request that nobody leaves.
    """

    __slots__ = ("gone", "tell")

    def __init__(self) -> None:
        self.gone = False
        self.tell: Callable[[], None] = _nothing

    def left(self) -> None:
        self.gone = True
        self.tell()


class GuardedProtocol(HttpToolsProtocol):
    """One client's connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ListenerLimits = DEFAULT_LIMITS,
        problem: Problem = plain_problem,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.access_log = False
        self.parser = self._new_parser()
        self._limits = limits
        self._problem = problem
        self._small = min(limits.header_line_bytes, limits.head_bytes, limits.target_bytes)
        self._running: RequestResponseCycle | None = None
        """The request being answered; ``cycle`` is the newest one, which may still wait in ``pipeline``."""
        self._persistent = False
        self._draining = False
        self._refusal: Reason | None = None
        self._left = False
        self._fault_seen: Reason | None = None
        self._head: list[tuple[bytes, bytes]] = []
        self._in_head = False
        self._fed = 0
        self._barren = 0
        """Bytes since the last that amounted to anything: an endless header, trailer or chunk extension."""
        self._since = self._begun = self._stalled = self.loop.time()

    def _new_parser(self) -> httptools.HttpRequestParser:
        # uvicorn lets data follow a request that says close; nobody will answer it, so nobody should parse it.
        return httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._alarm = self.loop.call_later(self._limits.tick_s, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        self._alarm.cancel()
        self.pipeline.clear()
        super().connection_lost(exc)
        # uvicorn tells only the newest request; one that is answered before it would generate to its end.
        if self._running is not None and not self._running.response_complete:
            self._disconnect(self._running)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        self._fed = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline_upgrade(data[offer.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._fault_seen or Reason.MALFORMED_HTTP)
        else:
            self._barren += self._fed
            if self._barren > self._limits.head_bytes:
                self._refuse(Reason.HEADERS_TOO_LARGE if self._in_head else Reason.MALFORMED_HTTP)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = self.headers
        self._in_head = True
        self._since = self.loop.time()
        self._barren = -self._fed

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            return
        self._fault_seen = self._fault()
        if self._fault_seen is not None:
            raise httptools.HttpParserError
        super().on_headers_complete()
        # uvicorn would append trailers to the scope of a request that was already authenticated.
        self.headers = []
        cycle = self.cycle
        cycle.transport = AppSide(self.transport, self._leave)
        cycle.scope["extensions"] = {LEAVING: Leaving()}  # type: ignore[dict-item] # ours is no dictionary
        # Until its body is here, an answer to this request is the connection's last: see on_message_complete.
        self._persistent = cycle.keep_alive and not self._draining
        cycle.keep_alive = False
        if not self.pipeline:
            self._running = cycle
        self._in_head = False
        self._since = self._begun = self.loop.time()
        self._barren = -self._fed

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._since = self.loop.time()
        self._barren = -self._fed

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        cycle = self.cycle
        cycle.more_body = False
        if not cycle.response_started:
            cycle.keep_alive = self._persistent
        cycle.message_event.set()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self._left or self.transport.is_closing():
            return
        if self._running is not None:
            # What answers HEAD has no body to take its head along.
            self._running.transport.write(b"")
        self._since = self._begun = self.loop.time()
        if self.pipeline:
            self._running, app = self.pipeline.pop()
            self._start_asgi_task(self._running, app)
        elif self._refusal is not None:
            self._answer(self._refusal)
            return
        if not self.pipeline:
            self.flow.resume_reading()

    def retire(self) -> None:
        """Answer what is asked, and what is asked next, and then close. An idle connection stays open until then."""
        self._draining = True
        self._persistent = False
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        self.retire()
        super().shutdown()

    def pause_writing(self) -> None:
        self._stalled = self.loop.time()
        super().pause_writing()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # A context of its own: a connection shared by several callers must not hand one's variables to the next.
        task = self.loop.create_task(self._run(cycle, app), context=contextvars.Context())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _run(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Run the application for one request; one that it leaves unanswered is answered here."""
        try:
            await app(cycle.scope, cycle.receive, cycle.send)
        except Exception as error:
            # Where, but not what: an error's text may quote a prompt (R7).
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = (place.filename, place.lineno)
            logger.error("%s from the application at %s:%s", type(error).__name__, *where, extra={"fault": error})
        finally:
            cycle.on_response = _nothing
            if not (cycle.response_complete or cycle.disconnected):
                self._give_up(cycle, Reason.INTERNAL_ERROR)

    def _fault(self) -> Reason | None:
        """What is wrong with a head that llhttp lets pass."""
        headers = self.headers
        if len(headers) > self._limits.headers or self._is_oversized():
            return Reason.HEADERS_TOO_LARGE
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0") or b"#" in self.url or len(self.pipeline) >= self._limits.pipelined:
            return Reason.MALFORMED_HTTP
        hosts = 0
        for name, value in headers:
            if name == b"host":
                hosts += 1
                if HOST.fullmatch(value) is None:
                    return Reason.INVALID_HOST
            elif name == b"transfer-encoding" and (version == "1.0" or value.strip(b" \t").lower() != b"chunked"):
                return Reason.MALFORMED_HTTP
        if hosts != 1 or self.url[:1] != b"/" or self.parser.get_method() == b"CONNECT":
            return Reason.INVALID_HOST
        return None

    def _is_oversized(self) -> bool:
        if self._barren < 0 and self._fed <= self._small:
            return False
        limits = self._limits
        lines = [len(name) + len(value) + len(b": \r\n") for name, value in self.headers]
        return (
            len(self.url) > limits.target_bytes
            or max(lines, default=0) > limits.header_line_bytes
            or sum(lines) > limits.head_bytes
        )

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read the head again as if it had offered no upgrade, which a server may ignore (Java's client offers h2c).

        llhttp takes what follows such a head for another protocol; uvicorn would answer to an empty body and go deaf.
        """
        head = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        head += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = self._new_parser()
        self.data_received(b"\r\n".join([*head, b"", rest]))

    def _refuse(self, reason: Reason) -> None:
        """Take no more from this client, and answer so when it is this request's turn."""
        self._refusal = reason
        if self.pipeline and self.cycle.more_body:
            self.pipeline.popleft()
        running = self._running
        if running is None or running.response_complete:
            self._answer(reason)
        elif running.more_body:
            self._give_up(running, reason)

    def _give_up(self, cycle: RequestResponseCycle, reason: Reason) -> None:
        self._refusal = reason
        self._disconnect(cycle)
        if cycle.response_started:
            self.transport.close()
        else:
            self._answer(reason)

    def _disconnect(self, cycle: RequestResponseCycle) -> None:
        cycle.disconnected = True
        cycle.message_event.set()
        cycle.scope["extensions"][LEAVING].left()  # type: ignore[attr-defined]

    def _answer(self, reason: Reason) -> None:
        status, headers, body = self._problem(reason, dict(self._head))
        ours = {
            b"content-length": b"%d" % len(body),
            b"connection": b"close",
            b"x-request-id": b"req_" + secrets.token_hex(16).encode(),
        }
        lines = [*self.server_state.default_headers, *(ours | dict(headers)).items()]
        head = b"".join(b"%b: %b\r\n" % line for line in lines)
        self.transport.write(b"".join((STATUS_LINE[status], head, b"\r\n", body)))
        self._leave()

    def _leave(self) -> None:
        """Close. A client that may still be sending gets to read its answer first.

        Closing on unread data makes the kernel send a reset, which can overtake the answer (RFC 9112, 9.6).
        """
        if self._left:
            return
        self._left = True
        self._stalled = self.loop.time()
        if self._refusal is None and self._running is not None and not self._running.more_body:
            self.transport.close()
            return
        self.flow.resume_reading()
        self.transport.set_protocol(Linger(self, self.transport, self._limits, self.loop))
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _check(self) -> None:
        """The connection's one timer."""
        limits, running, now = self._limits, self._running, self.loop.time()
        self._alarm = self.loop.call_later(limits.tick_s, self._check)
        if self._left or self.flow.write_paused or self.transport.is_closing():
            if now - self._stalled > limits.stall_s:
                self.transport.abort()
        elif running is not None and not running.response_complete:
            if running.more_body:
                self._check_body(running, now)
        elif self._in_head:
            if now - self._since > limits.head_s:
                self._refuse(Reason.REQUEST_TIMEOUT)
        elif now - self._since > (limits.head_s if running is None else limits.keep_alive_s):
            self.transport.close()

    def _check_body(self, running: RequestResponseCycle, now: float) -> None:
        if self.flow.read_paused or running.waiting_for_100_continue:
            # It is the application that keeps the client waiting.
            self._since = now
            self._begun += self._limits.tick_s
        elif now - self._since > self._limits.body_idle_s or now - self._begun > self._limits.body_s:
            self._refuse(Reason.REQUEST_TIMEOUT)


class AppSide(asyncio.Transport):
    """The transport as one request's cycle sees it: the head waits for the body, and a close lets the client finish.

    ASGI wants a head held back until the first of its body is there, which uvicorn leaves undone. Together they are one
    system call and one packet. From then on writes go straight to the socket.
    """

    def __init__(self, transport: asyncio.Transport, leave: Callable[[], None]) -> None:
        # Not asyncio's own __init__: there is one of these a request, and nobody asks it for extra information.
        self._transport = transport
        self._leave = leave
        # Attributes, not methods: a call more would be paid on every chunk of every answer.
        self.write = self._hold  # type: ignore[method-assign, assignment]
        self.is_closing = transport.is_closing  # type: ignore[method-assign]

    def close(self) -> None:
        self.write(b"")
        self._leave()

    def _hold(self, head: bytes | bytearray | memoryview) -> None:
        if bytes(head[: len(_INFORMATIONAL)]) == _INFORMATIONAL:
            self._transport.write(head)
        else:
            self._head = bytes(head)
            self.write = self._begin  # type: ignore[method-assign, assignment]

    def _begin(self, body: bytes | bytearray | memoryview) -> None:
        self.write = self._transport.write  # type: ignore[method-assign]
        self.write(self._head + bytes(body))


class Linger(asyncio.Protocol):
    """What is left of a connection that was answered early: swallows what still comes, bounded in bytes and time."""

    def __init__(
        self,
        owner: asyncio.Protocol,
        transport: asyncio.Transport,
        limits: ListenerLimits,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._owner = owner
        self._transport = transport
        self._room = limits.linger_bytes
        self._end = loop.call_later(limits.linger_s, transport.close)

    def data_received(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room < 0:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
        self._owner.connection_lost(exc)


def _nothing() -> None:
    """Stands in where there is nobody to call, or, for a finished cycle, nobody to keep alive by reference."""
