"""Countries as cells: each its own Ray cluster with real vLLM, in a home and in a network namespace of its own."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from serving.cli.processes import ours
from serving.engine.models import BUNDLED, prepare
from serving.settings import Settings
from tests.proof.capture import Capture, capturing
from tests.proof.netns import Apart, Land, Namespace, apart
from tests.records.telemetry.collector import FakeCollector, collecting
from tests.running import SHIPPED, UP_TIMEOUT_S, Ran, RunningCountry, RunningHouse

PORT = 9000
ABROAD = {"ee": "kr", "kr": "ee"}
"""The two countries of the journey, and to each the other."""


@dataclass(frozen=True)
class Cell:
    """One country, whole: its own cluster, home, link and capture."""

    code: str
    land: Land
    house: RunningHouse
    cores: frozenset[int]
    link: Capture
    """On the country's end of its link."""
    collector: FakeCollector
    """The country's own, where its processes send what they tell of themselves."""
    folder: Path

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread stands in the country, on its share of the machine, as whatever it starts does."""
        before = os.sched_getaffinity(0)
        with self.land.namespace.entered():
            os.sched_setaffinity(0, self.cores)
            try:
                yield
            finally:
                os.sched_setaffinity(0, before)

    def domicile(self, *words: str, timeout_s: float = 120) -> Ran:
        with self.inside():
            ran = self.house.domicile(*words, timeout_s=timeout_s)
        with (self.folder / "output.log").open("a") as log:
            log.write(f"$ domicile {' '.join(words)}\n{ran.out}{ran.err}")
        return ran

    def up(self) -> RunningCountry:
        """Bring the country up, or what of it is missing."""
        ran = self.domicile("up", "--json", "--country", self.code, timeout_s=UP_TIMEOUT_S)
        assert ran.code == 0, ran.err[-3000:]
        countries: Any = ran.json()["countries"]
        (one,) = countries
        return RunningCountry(one["country"], one["address"], one["key"])


@dataclass(frozen=True)
class Cells:
    """Countries that serve, apart from one another."""

    world: Namespace
    cells: Mapping[str, Cell]
    countries: Mapping[str, RunningCountry]
    begun: float
    """When they began to start, in seconds since the epoch."""

    def ask(self, code: str, key: str | None = None, **fields: Any) -> httpx.Response:
        """A chat completion, asked from abroad: from the callers' network."""
        return self.post(code, "/v1/chat/completions", fields, key)

    def post(
        self, code: str, path: str, body: Any, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        country = self.countries[code]
        bearer = {"authorization": f"Bearer {key or country.key}", **(headers or {})}
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        with self.world.entered():
            return httpx.post(f"{country.address}{path}", headers=bearer, timeout=120, **content)

    def get(self, code: str, path: str) -> httpx.Response:
        country = self.countries[code]
        with self.world.entered():
            answer = httpx.get(
                f"{country.address}{path}", headers={"authorization": f"Bearer {country.key}"}, timeout=60
            )
        assert answer.status_code == 200, answer.text
        return answer

    def wait_until_serving(self, code: str, timeout_s: float) -> list[int]:
        with self.world.entered():
            return self.countries[code].wait_until_serving(timeout_s)


@contextmanager
def standing_apart(folder: Path, evidence: Path, *codes: str) -> Iterator[Cells]:
    """Every country up in a namespace of its own, its link watched from before it starts until after it has ended."""
    begun = time.time()
    with apart(*codes) as lands, dumps_allowed(), ExitStack() as leaving:
        cells = {code: leaving.enter_context(_cell(folder, evidence, lands, code)) for code in codes}
        with ThreadPoolExecutor(len(cells)) as together:
            countries = dict(zip(cells, together.map(Cell.up, cells.values()), strict=True))
        yield Cells(lands.world, cells, countries, begun)


@contextmanager
def dumps_allowed() -> Iterator[None]:
    """Whatever starts meanwhile may dump its memory when it crashes, unless it sees to it itself."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


@contextmanager
def _cell(folder: Path, evidence: Path, lands: Apart, code: str) -> Iterator[Cell]:
    land, own = lands.lands[code], folder / code
    with (
        _collector(land) as collector,
        capturing(land.namespace, land.interface, evidence / f"link-{code}.pcap") as link,
    ):
        settings = _home(own, lands, code, collector)
        environment = {
            **os.environ,
            "DOMICILE_HOME": str(settings.home),
            "DOMICILE_COUNTRIES": str(settings.countries),
        }
        house = RunningHouse(settings, environment, {})
        cell = Cell(code, land, house, _share(lands, code), link, collector, own)
        try:
            yield cell
        finally:
            cell.domicile("down")
            for process in ours(settings.home):
                process.send_signal(signal.SIGKILL)


@contextmanager
def _collector(land: Land) -> Iterator[FakeCollector]:
    """On the country's own loopback."""
    collecting_there = collecting()
    with land.namespace.entered():
        collector = collecting_there.__enter__()
    try:
        yield collector
    finally:
        collecting_there.__exit__(None, None, None)


def _home(own: Path, lands: Apart, code: str, collector: FakeCollector) -> Settings:
    """A home of the country's own; the other countries are known by their public addresses only."""
    settings = Settings(home=own / "home", countries=own / "countries")
    settings.home.mkdir(mode=0o700, parents=True)
    shared = Settings.from_environment().models
    for name in BUNDLED:
        prepare(name, shared, lambda _doing, _done: None)
    settings.models.symlink_to(shared)
    for land in lands.lands.values():
        shutil.copytree(SHIPPED / land.code, settings.countries / land.code)
        file = settings.countries / land.code / "tenant.yaml"
        described = yaml.safe_load(file.read_text())
        described |= {"isolation": "cell", "gateway": {"host": land.address, "port": PORT}}
        if land.code == code:
            described["telemetry"] = {"collector": {"endpoint": collector.endpoint}, "sampling": 1.0}
        file.write_text(yaml.safe_dump(described, allow_unicode=True))
    return settings


def _share(lands: Apart, code: str) -> frozenset[int]:
    """The country's part of this machine's processors, as if it were a machine of its own."""
    mine, place, many = sorted(os.sched_getaffinity(0)), list(lands.lands).index(code), len(lands.lands)
    return frozenset(mine[place::many] or mine)
