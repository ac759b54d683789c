"""Time zero, told to every process of a run, on one machine or several."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson

from loadtests.client.desk import Clock
from loadtests.record import CLOCK

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def read_clock(folder: Path, head_start_s: float) -> Clock:
    """The clock of the run in ``folder``, begun now where nobody has; in any case one that is not past zero yet.

    Time zero in the past would make the first requests late before anything was asked, so it is put off, and written
    anew, when the generator took longer to start than it was given.
    """
    path = folder / CLOCK
    now = time.monotonic()
    if path.exists():
        clock = Clock(float(orjson.loads(path.read_bytes())["monotonic"]))
        if clock.zero > now:
            return clock
    clock = Clock(now + head_start_s)
    half = folder / f".{CLOCK}.{id(clock)}"
    half.write_bytes(orjson.dumps({"monotonic": clock.zero, "unix": time.time() + head_start_s}))
    half.replace(path)
    return clock


def told(clock: Clock) -> dict[str, Any]:
    """A clock, for another process."""
    return {"monotonic": clock.zero, "unix": time.time() - clock.now(), "boot": _boot()}


def heard(message: dict[str, Any]) -> Clock:
    """The same clock here. By the monotonic clock on the same machine, else by the time of day, which must be set."""
    if message["boot"] == _boot():
        return Clock(message["monotonic"])
    return Clock(time.monotonic() + message["unix"] - time.time())


def _boot() -> str:
    return _BOOT.read_text(encoding="ascii").strip() if _BOOT.exists() else ""
