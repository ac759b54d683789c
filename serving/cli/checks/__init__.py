"""What ``domicile doctor`` looks at. One small function a check: it takes the patient and returns a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import psutil

from serving.cli.cluster import LocalCluster
from serving.settings import Settings
from tenants.country import Country


class Verdict(StrEnum):
    """``warn``: it works, though less well than it could. ``fail``: it does not, or must not be relied on."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what to do about it where it is not ok."""

    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """One installation on one machine, as the doctor meets it."""

    settings: Settings
    cluster: LocalCluster
    processes: tuple[psutil.Process, ...]
    """Those that ``up`` started."""
    raylets: Mapping[str, int]
    """Country code to the process id of its living raylet; the head's is under ``""``."""
    countries: tuple[Country, ...]
    """Those that are up, or that ``up`` would bring up."""

    @property
    def alive(self) -> bool:
        """Whether the cluster's head lives."""
        return "" in self.raylets


Check = Callable[[Patient], Finding]


def ok(found: str) -> Finding:
    return Finding(Verdict.OK, found)


def warn(found: str, remedy: str) -> Finding:
    return Finding(Verdict.WARN, found, remedy)


def fail(found: str, remedy: str) -> Finding:
    return Finding(Verdict.FAIL, found, remedy)


def lines(items: Iterable[str]) -> str:
    """Several things found by one check, one a line."""
    return "\n".join(items)
