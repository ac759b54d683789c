"""Countries that a bench brings up for itself, in a home and on ports of their own, and takes down again."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import yaml

from serving.cli.ports import free_port
from serving.cli.processes import ours
from serving.settings import Settings
from tenants.country import Slo
from tests.bench.client import PATH
from tests.bench.country import HOST
from tests.bench.report import CannotMeasure

DOMICILE = Path(sys.executable).with_name("domicile")
LIMIT_S = 600.0
_REPLICA = "ray::ServeReplica"

Described = dict[str, Any]
"""A tenant.yaml, read."""


@dataclass(frozen=True, slots=True)
class Home:
    """A state directory with countries in it, whose gateways have ports of their own."""

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

    def promise(self, slo: Slo) -> None:
        """What the countries promise from their next start on; what they promise a class stays."""
        told = {"first_token_s": slo.first_token_s, "inter_token_s": slo.inter_token_s}
        self._rewrite(lambda described: {**described, "slo": {**described.get("slo", {}), **told}})

    def engine(self, **told: object) -> None:
        """How the countries' engines run from their next start on."""

        def rewritten(described: Described) -> Described:
            models = [{**model, "engine": {**model.get("engine", {}), **told}} for model in described["models"]]
            return {**described, "models": models}

        self._rewrite(rewritten)

    def _rewrite(self, change: Callable[[Described], Described]) -> None:
        for file in self.countries.glob("*/tenant.yaml"):
            file.write_text(yaml.safe_dump(change(yaml.safe_load(file.read_text())), allow_unicode=True))

    def processes(self) -> list[psutil.Process]:
        return ours(self.path)


@dataclass(frozen=True, slots=True)
class Up:
    """What ``domicile up`` says of a country."""

    address: str
    key: str
    model: str


@contextmanager
def home(*codes: str) -> Iterator[Home]:
    """A home of these countries with the bundled model prepared. What runs there at the end is ended."""
    with TemporaryDirectory(prefix="domicile-bench-") as folder:
        path, countries = Path(folder) / "home", Path(folder) / "countries"
        for code in codes:
            shutil.copytree(Settings.from_environment().countries / code, countries / code)
            file = countries / code / "tenant.yaml"
            described = yaml.safe_load(file.read_text())
            described["gateway"] = {**described.get("gateway", {}), "host": HOST, "port": free_port()}
            file.write_text(yaml.safe_dump(described, allow_unicode=True))
        made = Home(path, countries)
        made.domicile("models", "prepare")
        try:
            yield made
        finally:
            made.domicile("down")


def bring_up(at: Home) -> list[Up]:
    """``domicile up`` for every country there is in this home."""
    chosen = [word for folder in sorted(at.countries.iterdir()) for word in ("--country", folder.name)]
    said = at.domicile("up", *chosen, "--json")
    return [Up(one["address"], one["key"], one["models"][0]) for one in json.loads(said)["countries"]]


def replica_port(at: Home) -> int:
    """Where the only country's replica listens: the one that asks strangers for a claim."""
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
