"""Which processes there are to be disturbed, as a command tells: ``domicile status --json``, or another like it.

The command prints ``{"countries": [{"country": "ee", "processes": {"gateway": [pid], "<model>": [pid]},
"raylets": [pid], "databases": [pid], "store": "/path/to.sqlite", "ready": true}]}``; what it leaves out is not there.
Its exit code is not looked at, since a house in which something was killed says so with it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

COMMAND = ("domicile", "status", "--json")
TIMEOUT_S = 60.0
_GATEWAY = "gateway"


class NoSuchTarget(RuntimeError):
    """What is to be disturbed does not exist, or nobody can say where it is."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the command said, at one moment."""

    countries: Mapping[str, Mapping[str, Any]]

    @classmethod
    def taken(cls, command: Sequence[str] = COMMAND) -> Inventory:
        """Run the command. Raises :class:`NoSuchTarget` where it says nothing of use."""
        said = " ".join(command)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
            countries = json.loads(done.stdout)["countries"]
            return cls({country["country"]: country for country in countries})
        except OSError as error:
            raise NoSuchTarget(f"the inventory cannot be taken: {said}: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise NoSuchTarget(f"the inventory cannot be taken: {said} took more than {TIMEOUT_S:g} s") from error
        except (ValueError, KeyError, TypeError) as error:
            last = (done.stderr.strip().splitlines() or ["it printed no inventory"])[-1]
            raise NoSuchTarget(f"the inventory cannot be taken: {said}: {last}") from error

    def pids(self, country: str, target: str) -> tuple[int, ...]:
        """The processes of a country that are its ``replica``, ``gateway``, ``raylet`` or ``database``.

        Raises :class:`NoSuchTarget` where there is none.
        """
        found = self._pids(self._of(country), target)
        if not found:
            raise NoSuchTarget(f"{country} has no {target} process")
        return found

    def store(self, country: str) -> Path:
        """The country's SQLite database. Raises :class:`NoSuchTarget` where it has none."""
        store = self._of(country).get("store")
        if not store or not Path(store).is_file():
            raise NoSuchTarget(f"{country} has no database: no SQLite store{f' at {store}' if store else ''}")
        return Path(store)

    def has_process(self, country: str, target: str) -> bool:
        return bool(self._pids(self._of(country), target))

    def ready(self, country: str) -> bool:
        return bool(self._of(country).get("ready", True))

    def process(self, pid: int) -> psutil.Process:
        """Somebody whom the inventory names. Raises :class:`NoSuchTarget` for everybody else, and for the dead."""
        named = {each for country in self.countries.values() for each in _all_pids(country)}
        if pid not in named or pid in (0, 1, os.getpid(), os.getppid()):
            raise NoSuchTarget(f"process {pid} is not in the inventory, and is left alone")
        try:
            return psutil.Process(pid)
        except psutil.NoSuchProcess as error:
            raise NoSuchTarget(f"process {pid} has ended meanwhile") from error

    def _of(self, country: str) -> Mapping[str, Any]:
        if country not in self.countries:
            known = ", ".join(sorted(self.countries)) or "none"
            raise NoSuchTarget(f"{country} is not up; the inventory has {known}")
        return self.countries[country]

    @staticmethod
    def _pids(country: Mapping[str, Any], target: str) -> tuple[int, ...]:
        processes: Mapping[str, Sequence[int]] = country.get("processes", {})
        match target:
            case "gateway":
                return tuple(processes.get(_GATEWAY, ()))
            case "replica":
                return tuple(pid for name, pids in sorted(processes.items()) if name != _GATEWAY for pid in pids)
            case _:
                return tuple(country.get(f"{target}s", ()))


def _all_pids(country: Mapping[str, Any]) -> set[int]:
    processes = [pid for pids in country.get("processes", {}).values() for pid in pids]
    return {*processes, *country.get("raylets", ()), *country.get("databases", ())}
