"""``domicile loadtest``: a scenario against countries that are up, with keys of its own, watched from inside.

The test itself is ``python -m loadtests``, in a process of its own that knows nothing of the house but addresses and
keys. Here is what only the house can do: make the keys and end them, and read the replicas' private metrics.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import orjson
import typer

from serving.cli.cluster import LocalCluster
from serving.cli.output import USAGE, emit_json, fail, note
from serving.cli.probe import ready
from serving.cli.targets import Rival, customers, targets_file
from serving.cli.tenancy import AsJson
from serving.cli.up import CountryOption
from serving.cli.watch import Watch
from serving.settings import Settings
from tenants.country import Country
from tenants.errors import TenantError
from tenants.ground import GroundError
from tenants.private import NotPrivate, read_private
from tenants.registry import find_country
from tenants.store import StoreError

NO_VERDICT = 2
VERDICTS = (0, 1, NO_VERDICT)
SPARE = timedelta(hours=1)
"""How much longer than the test should take its keys may live, if nobody revokes them."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOADTESTS = (sys.executable, "-P", "-m", "loadtests")
_LONGEST_KEY = 4096
_STDERR = 2
_CAPACITY = re.compile(r"[a-z]{2}=[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Test:
    """What is to be run, and how, apart from where."""

    scenario: str
    countries: tuple[str, ...]
    """Those that the user named instead of the scenario's."""
    scale: float
    seed: int | None
    capacity: tuple[str, ...]

    def selection(self) -> list[str]:
        """The words that say to ``python -m loadtests`` which test it is."""
        words = [self.scenario]
        for code in self.countries:
            words += ["--country", code]
        return words

    def order(self, targets: Path, folder: Path) -> list[str]:
        words = ["run", *self.selection(), "--targets", str(targets), "--out", str(folder)]
        if self.scale != 1.0:
            words += ["--duration-scale", str(self.scale)]
        if self.seed is not None:
            words += ["--seed", str(self.seed)]
        for one in self.capacity:
            words += ["--capacity", one]
        return words


def loadtest(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A scenario's name, or a path to a .yaml file.")],
    country: CountryOption = None,
    against: Annotated[
        str | None, typer.Option(metavar="URL", help="An OpenAI endpoint to compare with, in the same run.")
    ] = None,
    against_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="What it calls the model.", show_default="as here")
    ] = None,
    against_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its key, in a file that only you can read.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything drawn.", show_default="the scenario's")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the report.", show_default="under $DOMICILE_HOME")
    ] = None,
    duration_scale: Annotated[float, typer.Option(min=0.01, max=1000, help="All durations times this.")] = 1.0,
    capacity: Annotated[
        list[str] | None,
        typer.Option(metavar="CC=R", help="Requests a second of a country, measured when left out; may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test countries that are up under load. Exit code 0: promises kept; 1: broken; 2: no verdict."""
    settings = Settings.from_environment()
    for one in capacity or ():
        if _CAPACITY.fullmatch(one) is None:
            fail(f"--capacity '{one}' is not a country and its requests a second, such as ee=4.5", USAGE)
    if against is None and (against_model or against_key_file):
        fail("--against-model and --against-key-file belong to --against", USAGE)
    test = Test(scenario, tuple(country or ()), duration_scale, seed, tuple(capacity or ()))
    described = _described(test)
    rival = None if against is None else Rival(against, against_model, _key(against_key_file))
    countries = _countries(test.countries or described["countries"], settings)
    folder = (out or _folder(settings, described["name"])).absolute()
    try:
        who = customers(described["organisations"])
        lifetime = _longest(described, duration_scale, sides=1 if rival is None else 2)
        with targets_file(countries, who, settings, lifetime, rival) as targets, Watch(countries, settings, folder):
            code = _run(test.order(targets, folder), quiet=as_json)
    except (TenantError, GroundError, StoreError) as error:
        fail(str(error))
    if as_json:
        emit_json({"folder": str(folder), "exit_code": code, "verdict": _verdict(folder)})
    raise typer.Exit(code)


def _described(test: Test) -> dict[str, Any]:
    """The scenario as JSON. What is wrong with it, the command that reads it says itself."""
    done = subprocess.run([*_LOADTESTS, "describe", *test.selection()], stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise typer.Exit(USAGE)
    described: dict[str, Any] = orjson.loads(done.stdout)
    return described


def _key(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return read_private(file, _LONGEST_KEY).decode("ascii").strip()
    except (OSError, NotPrivate, UnicodeDecodeError) as error:
        fail(f"--against-key-file: {error}", USAGE)


def _countries(codes: Sequence[str], settings: Settings) -> list[Country]:
    """Countries that are up on this machine, or an end to the command."""
    try:
        countries = [find_country(settings.countries, code) for code in dict.fromkeys(codes)]
    except TenantError as error:
        fail(str(error), USAGE)
    raylets = LocalCluster(settings).raylets()
    # Another program may answer at the address of a country that is not up.
    if down := [one.code for one in countries if one.code not in raylets or not ready(one)]:
        named = "".join(f" --country {one.code}" for one in countries)
        fail(f"not up and ready: {', '.join(down)}; bring the countries up first: domicile up{named}")
    return countries


def _folder(settings: Settings, name: str) -> Path:
    return settings.home / "loadtests" / f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"


def _longest(described: dict[str, Any], scale: float, sides: int) -> timedelta:
    """How long the test may take at most."""
    tested = sum(phase["duration_s"] for phase in described["phases"]) * sides + described["capacity"]["duration_s"]
    return timedelta(seconds=scale * tested + 2 * described["drain_s"]) + SPARE


def _run(words: Sequence[str], *, quiet: bool) -> int:
    """Run it in this terminal. Returns 0, 1 or 2, whatever became of it."""
    # Chaos asks `domicile status`, which is beside this Python and may be nowhere else.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    children: list[subprocess.Popen[bytes]] = []
    with _passed_on(children):
        child = subprocess.Popen(
            [*_LOADTESTS, *words],
            stdin=subprocess.DEVNULL,
            stdout=_STDERR if quiet else None,
            env={**os.environ, "PATH": path},
            # In a session of its own Ctrl-C does not reach it, so that it is told once, by us.
            start_new_session=True,
        )
        children.append(child)
        code = child.wait()
    if code not in VERDICTS:
        note(f"the load test ended with {code}")
    return code if code in VERDICTS else NO_VERDICT


@contextmanager
def _passed_on(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Signals that would end this process are the child's to obey: what it leaves is still to be put away."""

    def pass_on(number: int, _: FrameType | None) -> None:
        if not children:
            raise KeyboardInterrupt
        for child in children:
            child.send_signal(number)

    before: list[tuple[signal.Signals, Callable[[int, FrameType | None], Any] | int | None]] = [
        (each, signal.signal(each, pass_on)) for each in SIGNALS
    ]
    try:
        yield
    finally:
        for each, handler in before:
            signal.signal(each, handler)


def _verdict(folder: Path) -> object:
    try:
        return orjson.loads((folder / "verdict.json").read_bytes())
    except (OSError, ValueError):
        return None
