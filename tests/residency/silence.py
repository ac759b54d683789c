"""What a process' environment says that would let it talk abroad."""

from __future__ import annotations

from collections.abc import Mapping

import psutil

SILENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""These write a title over their environment: nobody can read it, and it is that of the raylet which started them."""


def lacking(environment: Mapping[str, str]) -> dict[str, str | None]:
    """The switches that are not as they should be."""
    return {name: environment.get(name) for name, value in SILENT.items() if environment.get(name) != value}


def loud(process: psutil.Process) -> dict[str, str | None]:
    """The same of a process that runs, from ``/proc``."""
    if (process.cmdline() or [""])[0].startswith(AGENTS):
        process = process.parent()
    return lacking(process.environ())
