"""A house that really stands: ``domicile up`` with Ray and vLLM, on ports and in a home of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import yaml
from openai import OpenAI

import tenants
from serving.cli.ports import free_port
from serving.cli.processes import ours
from serving.engine.models import BUNDLED, prepare
from serving.settings import Settings
from tenants.country import METRICS_PORTS

MODEL = "smollm2-135m-instruct"
SHIPPED = Path(tenants.__file__).parent / "countries"
DOMICILE = str(Path(sys.executable).with_name("domicile"))
UP_TIMEOUT_S = 600


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.out)
        return found


def ran(*words: str, environment: Mapping[str, str], timeout_s: float = 120) -> Ran:
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class RunningCountry:
    """A country that is up: where it is, and a key that opens it."""

    code: str
    address: str
    key: str

    @property
    def base_url(self) -> str:
        return f"{self.address}/v1"

    def sdk(self, **options: object) -> OpenAI:
        return OpenAI(**{"base_url": self.base_url, "api_key": self.key, "max_retries": 0, "timeout": 120, **options})  # type: ignore[arg-type]

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.address, headers={"authorization": f"Bearer {self.key}"}, timeout=120)

    def wait_until_serving(self, timeout_s: float) -> list[int]:
        """Ask once a second until an answer comes. Returns the statuses seen."""
        seen = []
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with self.http() as client:
                seen.append(client.post("/v1/chat/completions", json=body).status_code)
            if seen[-1] == 200:
                return seen
            time.sleep(1)
        raise AssertionError(f"{self.code} did not serve within {timeout_s:.0f} s: {seen}")


@dataclass(frozen=True)
class RunningHouse:
    """Countries that are up."""

    settings: Settings
    environment: Mapping[str, str]
    countries: Mapping[str, RunningCountry]

    def domicile(self, *words: str, timeout_s: float = 120) -> Ran:
        return ran(DOMICILE, *words, environment=self.environment, timeout_s=timeout_s)

    def processes(self) -> list[psutil.Process]:
        return ours(self.settings.home)

    def actor(self, country: str, deployment: str) -> psutil.Process:
        """The process of a country's gateway or replica, of which there is one."""
        (found,) = self.actors(country, deployment)
        return found

    def actors(self, country: str, deployment: str) -> list[psutil.Process]:
        title = f"ray::ServeReplica:domicile-{country}:{deployment}"
        return [process for process in self.processes() if _title(process).startswith(title)]

    def replica_url(self, country: str) -> str:
        """The private listener of a country's replica: all that it has on loopback."""
        (port,) = _listening_on_loopback(self.actor(country, MODEL))
        return f"http://127.0.0.1:{port}"


def _listening_on_loopback(process: psutil.Process) -> list[int]:
    return [
        connection.laddr.port
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.ip == "127.0.0.1"
    ]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@contextmanager
def standing(
    folder: Path,
    *codes: str,
    replicas: int = 1,
    isolation: str = "shared",
    telemetry: Mapping[str, Mapping[str, object]] | None = None,
) -> Iterator[RunningHouse]:
    """``domicile up`` for some countries, and ``domicile down`` at the end, whatever happened between.

    Args:
        telemetry: the section of that name in the files of the countries that shall have one.
    """
    settings = _home(folder, codes, replicas, isolation, telemetry or {})
    environment = {
        **os.environ,
        "DOMICILE_HOME": str(settings.home),
        "DOMICILE_COUNTRIES": str(settings.countries),
    }
    house = RunningHouse(settings, environment, {})
    try:
        chosen = [word for code in codes for word in ("--country", code)]
        up = house.domicile("up", "--json", *chosen, timeout_s=UP_TIMEOUT_S)
        assert up.code == 0, up.err[-3000:]
        countries = {
            one["country"]: RunningCountry(one["country"], one["address"], one["key"])
            for one in json.loads(up.out)["countries"]
        }
        yield RunningHouse(settings, environment, countries)
    finally:
        house.domicile("down", timeout_s=120)
        for process in ours(settings.home):
            process.send_signal(signal.SIGKILL)


def _home(
    folder: Path, codes: Sequence[str], replicas: int, isolation: str, telemetry: Mapping[str, Mapping[str, object]]
) -> Settings:
    """A home of its own with the model that is prepared once for all, and tenants on free ports."""
    home, countries = folder / "home", folder / "countries"
    home.mkdir(mode=0o700)
    shared = Settings.from_environment().models
    for name in BUNDLED:
        prepare(name, shared, lambda _doing, _done: None)
    (home / "models").symlink_to(shared)
    private = free_port(METRICS_PORTS * len(codes))
    for place, code in enumerate(codes):
        shutil.copytree(SHIPPED / code, countries / code)
        file = countries / code / "tenant.yaml"
        described = yaml.safe_load(file.read_text())
        described["gateway"] = {"port": free_port()}
        described["isolation"] = isolation
        described["telemetry"] = {
            "prometheus": {"port": private + METRICS_PORTS * place},
            **telemetry.get(code, {}),
        }
        for model in described["models"]:
            model["replicas"] = replicas
        file.write_text(yaml.safe_dump(described, allow_unicode=True))
    return Settings(home=home, countries=countries)
