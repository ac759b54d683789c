"""How sockets are waited for under gevent: by one watcher a stream, without waking a greenlet for every packet.

Measured against a greenlet that calls ``recv`` in a loop: see ``python -m loadtests.ceiling``.
"""

from __future__ import annotations

import socket
import sys
from time import monotonic

from gevent import get_hub
from gevent.hub import Waiter

from loadtests.client.wire import RECEIVED, Feed


def watched(sock: socket.socket, feed: Feed, until: float) -> str:
    """A :data:`loadtests.client.wire.Read` for the greenlet of one request, which sleeps until the answer is over."""
    return _Watch(sock, feed, until).result()


class _Watch:
    __slots__ = ("_feed", "_reads", "_recv", "_timer", "_until", "_waiter")

    def __init__(self, sock: socket.socket, feed: Feed, until: float) -> None:
        loop = get_hub().loop
        # The plain socket beneath gevent's, which does not wait.
        self._recv = sock._sock.recv  # type: ignore[attr-defined] # gevent's
        self._feed = feed
        self._until = until
        self._waiter = Waiter()
        self._reads = loop.io(sock.fileno(), 1)
        self._timer = loop.timer(max(until - monotonic(), 0.0))

    def result(self) -> str:
        self._reads.start(self._readable)
        self._timer.start(self._rang)
        try:
            return str(self._waiter.get())
        finally:
            self._stop()
            self._reads.close()
            self._timer.close()

    def _readable(self) -> None:
        try:
            data = self._recv(RECEIVED)
            now = monotonic()
        except BlockingIOError:
            return
        except OSError:
            data, now = b"", 0.0
        if not data:
            self._over("lost")
            return
        try:
            until = self._feed(data, now)
        except Exception:
            self._stop()
            self._waiter.throw(*sys.exc_info())
            return
        if until is None:
            self._over("")
        elif until < self._until:
            self._until = until
            self._again()

    def _rang(self) -> None:
        if monotonic() >= self._until:
            self._over("late")
        else:
            self._again()

    def _again(self) -> None:
        """The timer was set for a time that does not hold any more."""
        self._timer.stop()
        self._timer.close()
        self._timer = get_hub().loop.timer(max(self._until - monotonic(), 0.0))
        self._timer.start(self._rang)

    def _over(self, how: str) -> None:
        self._stop()
        self._waiter.switch(how)

    def _stop(self) -> None:
        self._reads.stop()
        self._timer.stop()
