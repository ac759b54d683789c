"""A country that a bench brings up for itself, on its own home and port, and takes down again."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import psutil
import yaml

from serving.cli.processes import ours
from serving.settings import Settings
from tests.bench.client import PATH
from tests.bench.country import CODE, HOST, free_port
from tests.bench.report import CannotMeasure

DOMICILE = Path(sys.executable).with_name("domicile")
LIMIT_S = 600.0
_REPLICA = "ray::ServeReplica"


@dataclass(frozen=True, slots=True)
class Home:
    """A state directory with one country in it, whose gateway has a port of its own."""

    path: Path
    countries: Path

    @property
    def settings(self) -> Settings:
        return Settings(self.path, self.countries)

    def domicile(self, *arguments: str) -> str:
        """Run the command on this home, and hand back what it says."""
        environment = {**os.environ, "DOMICILE_HOME": str(self.path), "DOMICILE_COUNTRIES": str(self.countries)}
        done = subprocess.run(
            [str(DOMICILE), *arguments], env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        if done.returncode != 0:
            raise CannotMeasure(f"domicile {' '.join(arguments)}: {done.stderr[-2000:]}")
        return done.stdout

    def processes(self) -> list[psutil.Process]:
        return ours(self.path)


@dataclass(frozen=True, slots=True)
class Up:
    """What ``domicile up`` says of the country, and how long it took."""

    address: str
    key: str
    model: str
    seconds: float


@contextmanager
def home() -> Iterator[Home]:
    """A home with the bundled model prepared and nothing running; whatever runs there at the end is ended."""
    with TemporaryDirectory(prefix="domicile-bench-") as folder:
        path, countries = Path(folder) / "home", Path(folder) / "countries"
        shutil.copytree(Settings.from_environment().countries / CODE, countries / CODE)
        file = countries / CODE / "tenant.yaml"
        described = yaml.safe_load(file.read_text())
        described["gateway"] = {**described.get("gateway", {}), "host": HOST, "port": free_port()}
        file.write_text(yaml.safe_dump(described, allow_unicode=True))
        made = Home(path, countries)
        made.domicile("models", "prepare")
        try:
            yield made
        finally:
            made.domicile("down")


def bring_up(at: Home) -> Up:
    begun = perf_counter()
    said = at.domicile("up", "--country", CODE, "--json")
    seconds = perf_counter() - begun
    (country,) = json.loads(said)["countries"]
    return Up(country["address"], country["key"], country["models"][0], seconds)


def replica_port(at: Home) -> int:
    """Where the country's replica listens: the one that asks strangers for a claim."""
    for process in at.processes():
        if not process.cmdline()[:1] or not process.cmdline()[0].startswith(_REPLICA):
            continue
        for socket in process.net_connections("tcp"):
            if socket.status == psutil.CONN_LISTEN and _asks_for_claim(socket.laddr.port):
                return int(socket.laddr.port)
    raise CannotMeasure("no replica of the country listens on loopback")


def _asks_for_claim(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("POST", PATH, b"{}", {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status == 403 and b"claim" in answer.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
