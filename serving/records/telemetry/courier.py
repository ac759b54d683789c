"""Carries telemetry to the country's own collector, from a thread of its own: OTLP over HTTP, protobuf.

The endpoint is a literal address that :mod:`tenants.country` found to be the country's own. It is spoken to directly:
no environment, no proxy, no name to look up, no redirect is heeded. What the collector does not take waits, within
bounds, and then goes: nothing here holds up or fails a request.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from time import time_ns
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from serving.records.telemetry.instruments import Reading
from serving.records.telemetry.logs import Entry
from serving.records.telemetry.otlp import Encoder
from serving.records.telemetry.trace import Ended
from tenants.country import Collector

PERIOD_S = 2.0
METRICS_PERIODS = 5
"""Metrics go with each so many-th carrying."""
TIMEOUT_S = 5.0
CLOSE_S = 2.0
"""How long a process that ends waits for the collector. The thread ends with the process, whatever it does."""
BATCH = 512
ROOM = 4096
"""Spans, and likewise log records, that may wait."""

Item = TypeVar("Item")


@dataclass(slots=True)
class _Waiting(Generic[Item]):
    """What is to be told of one kind. The oldest goes where there is no room."""

    items: deque[Item]
    dropped: int = 0

    def add(self, item: Item) -> None:
        if len(self.items) >= ROOM:
            self.dropped += 1
        self.items.append(item)

    def put_back(self, batch: list[Item]) -> None:
        room = ROOM - len(self.items)
        self.dropped += max(0, len(batch) - room)
        self.items.extendleft(reversed(batch[max(0, len(batch) - room) :]))


class _Answer(Enum):
    """What the collector says to a batch."""

    TAKEN = "taken"
    REFUSED = "refused"
    """It will not find it better later."""
    LATER = "later"


class Courier:
    """One process's way to the collector."""

    def __init__(self, collector: Collector, encoder: Encoder, readings: Callable[[], Iterable[Reading]]) -> None:
        """
        Raises:
            OSError: the authority's certificate cannot be read.
        """
        self._where = urlsplit(collector.endpoint)
        self._encoder = encoder
        self._readings = readings
        self._trust = _trust(collector)
        self._spans = _Waiting[Ended](deque(maxlen=ROOM))
        self._logs = _Waiting[Entry](deque(maxlen=ROOM))
        self._lost_metrics = 0
        self._connection: http.client.HTTPConnection | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def tell(self, item: Ended | Entry) -> None:
        """From any thread; takes a microsecond."""
        if isinstance(item, Ended):
            self._spans.add(item)
        else:
            self._logs.add(item)

    def dropped(self) -> dict[str, int]:
        """By signal, what the collector will never hear of."""
        return {"trace": self._spans.dropped, "log": self._logs.dropped, "metric": self._lost_metrics}

    def close(self) -> None:
        """Carry what is there once more, and end."""
        self._ending.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        periods = 0
        while not self._ending.wait(PERIOD_S):
            periods += 1
            self._carry(metrics=periods % METRICS_PERIODS == 0)
        self._carry(metrics=True)
        self._hang_up()

    def _carry(self, *, metrics: bool) -> None:
        self._all_of(self._spans, "/v1/traces", self._encoder.spans)
        self._all_of(self._logs, "/v1/logs", self._encoder.logs)
        if (
            metrics
            and self._post("/v1/metrics", self._encoder.metrics(self._readings(), time_ns())) is not _Answer.TAKEN
        ):
            self._lost_metrics += 1

    def _all_of(self, waiting: _Waiting[Item], path: str, encode: Callable[[list[Item]], bytes]) -> None:
        while waiting.items:
            batch = [waiting.items.popleft() for _ in range(min(BATCH, len(waiting.items)))]
            match self._post(path, encode(batch)):
                case _Answer.REFUSED:
                    waiting.dropped += len(batch)
                case _Answer.LATER:
                    waiting.put_back(batch)
                    return

    def _post(self, path: str, body: bytes) -> _Answer:
        """What came of it. A redirect is a refusal: where it leads to, nobody has looked at."""
        try:
            status = self._status(path, body)
        except (OSError, http.client.HTTPException):
            self._hang_up()
            return _Answer.LATER
        if status >= 500 or status == HTTPStatus.TOO_MANY_REQUESTS:
            return _Answer.LATER
        return _Answer.TAKEN if 200 <= status < 300 else _Answer.REFUSED

    def _status(self, path: str, body: bytes) -> int:
        connection = self._connection = self._connection or self._connected()
        connection.request("POST", path, body, {"content-type": "application/x-protobuf"})
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

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _trust(collector: Collector) -> ssl.SSLContext | None:
    """The country's own authority and no other: the default context would listen to the environment."""
    if collector.certificate_authority is None:
        return None
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.load_verify_locations(cafile=str(collector.certificate_authority))
    return trust
