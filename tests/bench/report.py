"""What a bench hands back, how it is printed, and where it is kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Literal

import psutil

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "reports"
PACKAGES = ("uvloop", "httptools", "uvicorn", "orjson", "starlette")


class CannotMeasure(Exception):
    """A number would not mean anything. The text says why."""


@dataclass(frozen=True, slots=True)
class Number:
    """One measured number: the median of its rounds, and its target where it has one."""

    name: str
    unit: str
    rounds: tuple[float, ...]
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"

    @property
    def value(self) -> float:
        return median(self.rounds)

    @property
    def passed(self) -> bool | None:
        """``None`` for a number that promises nothing."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    @property
    def promise(self) -> str:
        return "" if self.target is None else f"{'≤' if self.better == 'lower' else '≥'} {self.target:g}"


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one bench."""

    name: str
    about: str
    numbers: tuple[Number, ...]
    machine: dict[str, str | int | float] = field(default_factory=lambda: machine())

    @property
    def passed(self) -> bool:
        return all(number.passed is not False for number in self.numbers)

    def table(self) -> str:
        head = ("number", "median", "lowest", "highest", "unit", "target", "")
        rows: list[tuple[str, ...]] = [head, *(_row(number) for number in self.numbers)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows.insert(1, tuple("-" * width for width in widths))
        return "\n".join(f"| {' | '.join(map(str.ljust, row, widths))} |" for row in rows)

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"bench-{self.name}.json"
        numbers = [{**asdict(each), "median": each.value, "passed": each.passed} for each in self.numbers]
        whole = {"name": self.name, "about": self.about, "machine": self.machine, "numbers": numbers}
        path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
        return path


def summary(reports: Sequence[Report]) -> str:
    """All benches of a run as Markdown."""
    parts = ["# Bench"]
    if reports:
        facts = ", ".join(f"{name} {value}" for name, value in reports[0].machine.items())
        parts.append(f"Medians of interleaved rounds. {facts}.")
    for report in reports:
        parts += [f"## {report.name}", report.about, report.table()]
    return "\n\n".join(parts) + "\n"


def machine() -> dict[str, str | int | float]:
    """What the numbers depend on."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "load_before": round(os.getloadavg()[0], 2),
    }


def _commit() -> str:
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - whichever git the caller uses
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() if asked.returncode == 0 else "none"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _row(number: Number) -> tuple[str, ...]:
    verdict = {True: "pass", False: "FAIL", None: ""}[number.passed]
    figures = (f"{figure:,.4g}" for figure in (number.value, min(number.rounds), max(number.rounds)))
    return number.name, *figures, number.unit, number.promise, verdict
