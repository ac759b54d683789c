"""What the replicas of this machine say of themselves while a load test runs: a line of samples each second.

The lines are those of ``loadtests.record.Sample``, in the run's own folder and on its clock. A replica that does not
answer leaves a gap, and one that is new is found: nothing that happens to a country ends the watching.
"""

from __future__ import annotations

import http.client
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from serving.cli.cluster import LocalCluster
from serving.cli.inventory import actors, listening, titles
from serving.cli.ports import LOOPBACK
from serving.cli.readings import metrics, values
from serving.engine.port import METRICS
from serving.replicas.claim import HEADER, CellKey, Claim
from serving.settings import Settings
from serving.types import ServiceClass
from tenants.country import Country
from tenants.ground import CountryGround

EVERY_S = 1.0
SEARCH_S = 5.0
"""How often replicas are looked for: reading every process's environment costs what it is meant to watch."""
TIMEOUT_S = 5.0
CLAIM_S = 20.0
SAMPLES, CLOCK = "samples.jsonl", "clock.json"


@dataclass(frozen=True, slots=True)
class Listening:
    """A replica of a country on this machine."""

    country: str
    pid: int
    host: str
    port: int


def replicas(countries: Sequence[Country], settings: Settings) -> Iterator[Listening]:
    """Those of some countries that run on this machine now."""
    hosts = {settings.private_host or LOOPBACK, LOOPBACK}
    running = titles(LocalCluster(settings).processes())
    for country in countries:
        models = actors(running, country.code, [model.id for model in country.models])
        for pid in sorted(pid for pids in models.values() for pid in pids):
            for host, port in listening(pid, hosts):
                yield Listening(country.code, pid, host, port)


class Reader:
    """Reads one replica's metrics over a connection that is kept, with a claim for each time."""

    def __init__(self, replica: Listening, key: CellKey) -> None:
        self._replica = replica
        self._key = key
        self._connection = http.client.HTTPConnection(replica.host, replica.port, timeout=TIMEOUT_S)

    def read(self) -> dict[str, float]:
        """Raises :class:`OSError`, :class:`http.client.HTTPException` or :class:`ValueError`; then read again."""
        try:
            self._connection.request("GET", METRICS, headers={HEADER: self._key.sign(self._claim())})
            response = self._connection.getresponse()
            text = response.read().decode()
            if response.status != http.client.OK:
                raise ValueError(f"status {response.status}")
            return metrics(text)
        except (OSError, http.client.HTTPException, ValueError):
            self.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def _claim(self) -> Claim:
        expiry = time.time() + CLAIM_S
        # Nobody's: it is the country's operator that asks, and nothing is done on behalf of an organisation.
        return Claim(
            country=self._replica.country,
            organisation="",
            request_id=f"watch_{secrets.token_hex(12)}",
            service_class=ServiceClass.BATCH,
            path=METRICS,
            deadline=expiry,
            expiry=expiry,
        )


class Watch:
    """A context in which the replicas of some countries are sampled into a run's folder."""

    def __init__(
        self,
        countries: Sequence[Country],
        settings: Settings,
        folder: Path,
        find: Callable[[], Iterable[Listening]] | None = None,
    ) -> None:
        """``find`` looks for replicas; :func:`replicas` when left out."""
        self._find = find or partial(replicas, countries, settings)
        self._keys = {
            one.code: CellKey(CountryGround(settings.country(one.code), one.code).cell_key()) for one in countries
        }
        self._folder = folder
        self._done = threading.Event()
        self._followers: dict[Listening, threading.Thread] = {}
        self._numbers = {code: count() for code in self._keys}
        self._searcher = threading.Thread(target=self._search, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._searcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        # A follower that waits for a stopped process ends with this one: what it would write is of no use any more.
        self._searcher.join(EVERY_S)
        for follower in list(self._followers.values()):
            follower.join(EVERY_S)

    def _search(self) -> None:
        while self._zero() is None and not self._done.wait(EVERY_S / 10):
            pass
        while not self._done.is_set():
            present = list(self._find())
            for replica in present:
                if replica not in self._followers:
                    self._follow(replica)
            for replica in self._followers.keys() - set(present):
                del self._followers[replica]
            self._done.wait(SEARCH_S)

    def _zero(self) -> float | None:
        """The run's time zero by the monotonic clock, which a load generator that starts slowly puts off."""
        try:
            return float(orjson.loads((self._folder / CLOCK).read_bytes())["monotonic"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _follow(self, replica: Listening) -> None:
        follower = threading.Thread(target=self._sample, args=(replica,), name=f"watch {replica}", daemon=True)
        self._followers[replica] = follower
        follower.start()

    def _sample(self, replica: Listening) -> None:
        reader = Reader(replica, self._keys[replica.country])
        source = ""
        before: dict[str, float] | None = None
        read = 0.0
        while not self._done.is_set() and replica in self._followers:
            last, read = read, time.monotonic()
            try:
                now = reader.read()
                source = source or f"replica:{replica.country}:{next(self._numbers[replica.country])}"
                if before is not None:
                    self._write(read, source, values(before, now, read - last))
                before = now
            except (OSError, http.client.HTTPException, ValueError):
                before = None
            self._done.wait(max(0.0, read + EVERY_S - time.monotonic()))
        reader.close()

    def _write(self, read: float, source: str, told: Mapping[str, float]) -> None:
        zero = self._zero()
        if zero is None or read < zero:
            return
        line = orjson.dumps({"at": read - zero, "source": source, "values": told}) + b"\n"
        # One write to the end of the file, which several processes and threads share.
        file = os.open(self._folder / SAMPLES, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)
