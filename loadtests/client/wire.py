"""HTTP/1.1 on plain sockets: one POST, one answer, connections used again.

Where a finished library reads a stream through five layers, this takes a packet from the kernel, reads the clock, and
feeds :class:`~loadtests.client.answer.Answer`. Nothing is ever sent twice: a second try would hide the first one's end.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

from loadtests.client.answer import Answer
from loadtests.record import Outcome

RECEIVED = 32 * 1024
"""Bytes taken from the kernel at once, at most."""
IDLE_S = 4.0
"""How long an idle connection is kept. Uvicorn, as vLLM runs it, closes them after 5 s; it is us who must close."""
CONNECT_S = 10.0
AFTER_END_S = 1.0
"""How long the end of the HTTP message may take when the answer in it has ended."""

Feed = Callable[[bytes, float], float | None]
"""Takes a packet and the time it was taken. Returns until when to go on reading, ``None`` for no more."""
Read = Callable[[socket.socket, Feed, float], str]
"""Feeds packets until the feed has enough (``""``), the peer ends (``"lost"``) or the time has come (``"late"``)."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an answer is waited for, by the monotonic clock."""

    until: float
    """Then it is late, and has failed."""
    events: int | None = None
    """So many events with content are enough: the client leaves, as one who has read enough."""
    leaves: float | None = None
    """Then the client leaves, whatever came."""


class Left(BaseException):
    """Raised into a request that the load test leaves because it ends."""


def blocking(sock: socket.socket, feed: Feed, until: float) -> str:
    """A :data:`Read` that waits in ``recv``. Under gevent, this parks the greenlet."""
    while (left_s := until - monotonic()) > 0:
        sock.settimeout(left_s)
        try:
            data = sock.recv(RECEIVED)
        except TimeoutError:
            return "late"
        except OSError:
            return "lost"
        now = monotonic()
        if not data:
            return "lost"
        wanted = feed(data, now)
        if wanted is None:
            return ""
        until = min(until, wanted)
    return "late"


class Wire:
    """Connections to one origin. ``read`` is how answers are waited for; TLS is always read by :func:`blocking`."""

    def __init__(self, origin: str, ca: Path | None = None, read: Read = blocking) -> None:
        parts = urlsplit(origin)
        self._host = parts.hostname or ""
        self._tls = self._context(ca) if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._read = blocking if self._tls else read
        self._idle: deque[tuple[float, socket.socket]] = deque()
        self.authority = parts.netloc

    def head(self, path: str, key: str, length: int) -> bytes:
        """The head of a POST of JSON with ``length`` bytes."""
        bearer = f"authorization: Bearer {key}\r\n" if key else ""
        return (
            f"POST {path} HTTP/1.1\r\nhost: {self.authority}\r\nuser-agent: domicile-loadtest\r\n{bearer}"
            f"content-type: application/json\r\naccept: */*\r\ncontent-length: {length}\r\n\r\n"
        ).encode("latin-1")

    def fresh(self, sock: socket.socket) -> socket.socket:
        """``sock``, or another where it was closed since it was made ready. Raises :class:`OSError`."""
        if not _readable(sock):
            return sock
        sock.close()
        return self.connect()

    def connect(self) -> socket.socket:
        """A connection to ask on, used before where there is one. Raises :class:`OSError`."""
        while self._idle:
            since, sock = self._idle.pop()
            if monotonic() - since < IDLE_S and not _readable(sock):
                return sock
            sock.close()
        sock = socket.create_connection((self._host, self._port), timeout=CONNECT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._tls.wrap_socket(sock, server_hostname=self._host) if self._tls else sock

    def ask(self, sock: socket.socket, request: bytes, answer: Answer, patience: Patience) -> float:
        """Send a whole request and read its answer. Returns when its last byte was handed to the kernel.

        Whatever goes wrong is in ``answer``. Raises :class:`Left` alone, after it was marked as aborted.
        """
        sent = monotonic()
        try:
            sock.settimeout(max(patience.until - sent, 0.001))
            sock.sendall(request)
            sent = monotonic()
            self._take(sock, answer, patience)
        except OSError:
            answer.lost(monotonic())
        except Left:
            answer.blame("run-ended", monotonic(), Outcome.ABORTED)
            sock.close()
            raise
        if answer.complete and answer.reusable:
            self.keep(sock)
        else:
            sock.close()
        return sent

    def keep(self, sock: socket.socket) -> None:
        """Give back a connection on which nothing is under way."""
        self._idle.append((monotonic(), sock))

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    def _take(self, sock: socket.socket, answer: Answer, patience: Patience) -> None:
        enough = patience.events
        until = patience.until if patience.leaves is None else min(patience.until, patience.leaves)

        def feed(data: bytes, now: float) -> float | None:
            if answer.feed(data, now) or (enough is not None and answer.pace.events >= enough):
                return None
            return until if answer.ended is None else now + AFTER_END_S

        how = self._read(sock, feed, until)
        if how == "lost":
            answer.lost(monotonic())
        elif how == "late" and until == patience.until:
            answer.blame("timeout", monotonic())
        elif not answer.complete:
            answer.blame("left", monotonic(), Outcome.ABORTED)

    @staticmethod
    def _context(ca: Path | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


def _readable(sock: socket.socket) -> bool:
    """Whether an idle connection has something to say, which can only be that it is over."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
