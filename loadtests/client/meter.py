"""How well the load generator keeps its own time: so that nobody blames a service for its client's sleepiness.

Two things make a client late: it sends late, and it reads late, so that a token waits in the kernel and looks slow.
The first is measured at every request. The second is measured by a heartbeat every :data:`BEAT_S`: how late the beat
is, is how long a packet that came then may have waited. A beat that is missed altogether counts with the lateness it
would have had, or else a stall of a second would be one sample among fifty (coordinated omission again).

Not more often: on a machine that the generator shares with an engine, whose threads wait for each other at every step,
each beat may cost the engine a wait of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn

BEAT_S = 0.02


class Meter:
    """Collects lateness, and is read once a second."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._read_at = time.monotonic()
        self._worked = time.process_time()

    def late(self, seconds: float) -> None:
        """One thing was done so much after its time."""
        self._late.append(seconds)

    def beat(self, sleep: Callable[[float], None] = time.sleep) -> NoReturn:
        """Beat for ever."""
        due = time.monotonic() + BEAT_S
        while True:
            sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            while due <= now:
                self._late.append(now - due)
                due += BEAT_S

    def read(self) -> dict[str, float]:
        """``lag_p50_s``, ``lag_p99_s`` and ``cpu`` (cores used by this process) since the last reading."""
        late, self._late = sorted(self._late), []
        now, worked = time.monotonic(), time.process_time()
        cpu = (worked - self._worked) / max(now - self._read_at, 1e-9)
        self._read_at, self._worked = now, worked
        return {"lag_p50_s": _rank(late, 0.5), "lag_p99_s": _rank(late, 0.99), "cpu": round(cpu, 4)}


def _rank(ordered: list[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 6) if ordered else 0.0
