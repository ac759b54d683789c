"""A run's folder, as it is written: made, dated, planned and added to. :class:`loadtests.record.Run` reads it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from shutil import disk_usage
from typing import Any

import orjson

from loadtests.record import CLOCK, EVENTS, PLAN, REQUESTS, SAMPLES, Event, Sample
from loadtests.running import machine
from loadtests.scenario import Scenario
from loadtests.schedule import Schedule, Span
from loadtests.targets import Targets
from tenants.errors import Problem, TenantError

_BYTES_PER_REQUEST = 600
_BYTES_PER_TOKEN = 28
"""A gap and its count, as JSON."""
_SPARE_BYTES = 64 * 1024**2
"""What a run's logs, samples and report take beside its requests."""


def prepare(folder: Path) -> None:
    """Make the folder, for its owner alone. Raises :class:`tenants.errors.TenantError` where it cannot be used."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any((folder / name).exists() for name in (PLAN, REQUESTS, CLOCK)):
            raise TenantError(folder, [Problem("", "holds a run already; name another folder")])
        # Found out by writing, before anything is sent: missing rights, a full disk.
        (folder / PLAN).write_bytes(b" " * 65536)
        (folder / PLAN).unlink()
        for name in (REQUESTS, SAMPLES, EVENTS):
            (folder / name).touch(mode=0o600)
    except OSError as error:
        raise TenantError(folder, [Problem("", f"cannot be written to: {error.strerror or error}")]) from error


def room_for(schedule: Schedule, folder: Path) -> None:
    """Raises :class:`tenants.errors.TenantError` where the requests' records would fill the disk."""
    tokens = sum(arrival.output_tokens for arrival in schedule.arrivals)
    needed = len(schedule.arrivals) * _BYTES_PER_REQUEST + tokens * _BYTES_PER_TOKEN + _SPARE_BYTES
    free = disk_usage(folder).free
    if free < needed:
        problem = f"the run needs about {needed >> 20} MiB, and {free >> 20} MiB are free there"
        raise TenantError(folder, [Problem("", problem)])


def zero_of(folder: Path) -> float:
    """Time zero by the monotonic clock; never, where the generator has not said it yet (see loadtests.client.clock)."""
    try:
        return float(orjson.loads((folder / CLOCK).read_bytes())["monotonic"])
    except FileNotFoundError:
        return math.inf


def write_plan(
    folder: Path,
    scenario: Scenario,
    targets: Targets,
    seed: int,
    capacity: Mapping[str, float],
    phases: Iterable[Span] = (),
    duration_s: float = 0.0,
) -> None:
    """What is to be sent and where, without the keys, and what the run is made on."""
    plan: dict[str, Any] = {
        "scenario": scenario.model_dump(mode="json"),
        "targets": targets.without_keys(),
        "seed": seed,
        "salt": new_salt(),
        "capacity": dict(capacity),
        "phases": [asdict(span) for span in phases],
        "began": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "duration_s": duration_s,
        "machine": machine.describe(),
        "versions": machine.versions(),
        "commit": machine.commit(),
    }
    (folder / PLAN).write_bytes(orjson.dumps(plan, option=orjson.OPT_INDENT_2))


def new_salt() -> int:
    """What makes a run's prompts its own, so that no cache still holds them."""
    return secrets.randbits(32)


def add(folder: Path, line: Event | Sample) -> None:
    """Append an event or a sample. In one write, since several processes append to these files."""
    name = EVENTS if isinstance(line, Event) else SAMPLES
    with (folder / name).open("ab", buffering=0) as file:
        file.write(orjson.dumps(asdict(line)) + b"\n")
