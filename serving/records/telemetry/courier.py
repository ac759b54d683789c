"""The way to the country's own collector: OTLP over HTTP, protobuf.

The endpoint is a literal address that :mod:`tenants.country` found to be the country's own. It is spoken to directly:
no environment, no proxy, no name to look up, no redirect is heeded. Nothing here holds up or fails a request: the
SDK's processors come here on threads of their own.
"""

from __future__ import annotations

import http.client
import math
import os
import ssl
import threading
from enum import Enum
from http import HTTPStatus
from time import monotonic
from urllib.parse import urlsplit

from tenants.country import Collector

PERIOD_S = 2.0
"""How often what there is goes, and how long a collector that could not take it is left alone."""
BATCH = 512
ROOM = 4096
"""Spans, and likewise log records, that may wait."""
TIMEOUT_S = 2.0
CLOSE_S = 2 * TIMEOUT_S
"""How long a process that ends may take: for what is on its way then, and for what is left. Its threads end with it."""


class _Answer(Enum):
    """What the collector says to a message."""

    TAKEN = "taken"
    REFUSED = "refused"
    """It will not find it better later."""
    LATER = "later"


class Courier:
    """One process's way to one of the collector's paths, for one thread at a time; the counts are for any.

    What is :meth:`told` waits in a queue of the SDK's. Where there is no room it lets the oldest go and counts none:
    whoever was told, was not brought, and can be waiting no more is gone. That tells nothing while the SDK's thread
    has a batch in its hands that no longer waits and is not brought yet, so it is asked only while one is brought.
    """

    def __init__(self, collector: Collector, path: str) -> None:
        """
        Raises:
            OSError: the authority's certificate cannot be read.
        """
        self._where = urlsplit(collector.endpoint)
        self._path = path
        self._trust = _trust(collector)
        self._connection: http.client.HTTPConnection | None = None
        self._process = os.getpid()
        self._ending = threading.Event()
        self._until = math.inf
        self._bringing = False
        self._lock = threading.Lock()
        self._told = self._brought = self._gone = self._refused = 0

    @property
    def lost(self) -> int:
        """What the collector will never hear of."""
        return self._gone + self._refused

    def told(self) -> None:
        """One more is waiting, or was."""
        with self._lock:
            self._told += 1
            if self._bringing:
                self._count_gone(ROOM)

    def bring(self, message: bytes, items: int) -> bool:
        """So many that waited, until they are taken, or refused, or this ends: whether they were taken."""
        with self._lock:
            self._brought += items
            self._bringing = True
            self._count_gone(ROOM)
        while (answer := self._post(message)) is _Answer.LATER and not self._ending.is_set():
            self._ending.wait(PERIOD_S)
        with self._lock:
            self._bringing = False
        return self._counted(answer, items)

    def offer(self, message: bytes) -> bool:
        """Once, what did not wait: whether it was taken."""
        return self._counted(self._post(message), 1)

    def hurry(self) -> None:
        """From now on each message is brought once, and none when :data:`TIMEOUT_S` are over."""
        self._until = monotonic() + TIMEOUT_S
        self._ending.set()

    def close(self) -> None:
        """Nothing is brought any more."""
        with self._lock:
            self._count_gone(0)
        self._hang_up()

    def _count_gone(self, waiting: int) -> None:
        """Where so many at most wait."""
        self._gone = max(self._gone, self._told - self._brought - waiting)

    def _counted(self, answer: _Answer, items: int) -> bool:
        if answer is not _Answer.TAKEN:
            with self._lock:
                self._refused += items
        return answer is _Answer.TAKEN

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, message: bytes) -> _Answer:
        """What came of it. A redirect is a refusal: where it leads to, nobody has looked at."""
        if os.getpid() != self._process:
            # A process that was forked off has the same connection in its hands, and no business with it.
            return _Answer.REFUSED
        if monotonic() > self._until:
            return _Answer.LATER
        try:
            status = self._status(message)
        except (OSError, http.client.HTTPException):
            self._hang_up()
            return _Answer.LATER
        if status >= 500 or status == HTTPStatus.TOO_MANY_REQUESTS:
            return _Answer.LATER
        return _Answer.TAKEN if 200 <= status < 300 else _Answer.REFUSED

    def _status(self, message: bytes) -> int:
        connection = self._connection = self._connection or self._connected()
        connection.request("POST", self._path, message, {"content-type": "application/x-protobuf"})
        answer = connection.getresponse()
        answer.read(1 << 16)
        if answer.will_close or answer.length:
            self._hang_up()
        return answer.status

    def _connected(self) -> http.client.HTTPConnection:
        host, port = self._where.hostname, self._where.port
        assert host is not None
        if self._trust is None:
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=self._trust)


def _trust(collector: Collector) -> ssl.SSLContext | None:
    """The country's own authority and no other: the default context would listen to the environment."""
    if collector.certificate_authority is None:
        return None
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.load_verify_locations(cafile=str(collector.certificate_authority))
    return trust
