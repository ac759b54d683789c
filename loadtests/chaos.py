"""Things that go wrong on purpose while a load test runs: processes that die or stand still, links that fail.

What happens when is decided before the run (:func:`faults_of`); :class:`Mischief` does it. Processes are looked up anew
for each fault, since the fault before it may have replaced them, and only those are ever signalled that the inventory
names. Whatever was stopped, locked or broken is set going again when the block is left.
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import orjson
import psutil

from loadtests.mischief.faults import ProxyProcess
from loadtests.mischief.inventory import COMMAND, Inventory, NoSuchTarget
from loadtests.mischief.planned import LINK, PROCESSES, Planned, faults_of, linked
from loadtests.record import EVENTS, Event

__all__ = ["Mischief", "NoSuchTarget", "Planned", "faults_of", "linked"]

ROLL_OUT = ("domicile", "up", "--restart", "--json")
"""Called with ``--country CC`` after it."""
LATENCY = {"delay_s": 0.2, "jitter_s": 0.05}
SLICES = {"size": 16, "pause_s": 0.002}
RECOVERY_S = 300.0
POLL_S = 5.0
"""Between two looks at whether something is back: taking an inventory costs a second of CPU."""
ROLL_OUT_LEFT_S = 120.0
"""How much longer than the run a roll-out may take."""
_SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "stop": signal.SIGSTOP}
_EXPECTED = (NoSuchTarget, OSError, ValueError, psutil.Error, sqlite3.Error)


class Mischief:
    """Does what was planned, at its time, from a thread of its own, and writes an event for each of it.

    A fault is an :class:`loadtests.record.Event` of kind ``fault``, with ``action``, ``target``, ``country``, ``phase``
    and, of a process, ``pid`` among its facts. When its effect is over, an event of kind ``recovery`` follows with the
    same facts, ``fault_at`` and ``recovered_at``. A fault that could not be done has an ``error`` among its facts and
    is in ``problems``.

    Args:
        folder: the run's, for ``events.jsonl``.
        links: the proxies that :func:`linked` put before countries.
        inventory: the command that :mod:`loadtests.mischief.inventory` describes.
        roll_out: the command of a roll-out.

    Entering the block raises :class:`NoSuchTarget` when something that was planned has nothing to happen to.
    """

    def __init__(
        self,
        planned: Sequence[Planned],
        folder: Path,
        *,
        links: Mapping[str, ProxyProcess] | None = None,
        inventory: Sequence[str] = COMMAND,
        roll_out: Sequence[str] = ROLL_OUT,
        poll_s: float = POLL_S,
    ) -> None:
        self.problems: list[str] = []
        self._planned = sorted(planned, key=lambda one: one.at)
        self._folder = folder
        self._began = time.monotonic()
        self._links = dict(links or {})
        self._inventory = tuple(inventory)
        self._roll_out_command = tuple(roll_out)
        self._poll_s = poll_s
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self._held: list[_Held] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._look_ahead()
        return self

    def begin(self, began: float) -> None:
        """Start. ``began`` is the run's time zero by ``time.monotonic()``."""
        self._began = began
        if self._planned:
            self._start(self._follow_plan)

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        try:
            self._release_all()
            for thread in self._threads:
                thread.join()
        finally:
            # What a thread took hold of while it was waited for.
            self._release_all()

    def _look_ahead(self) -> None:
        """Raises :class:`NoSuchTarget` with everything that is missing."""
        missing: list[str] = []
        found = Inventory.taken(self._inventory) if any(_is_looked_up(one) for one in self._planned) else None
        for one in self._planned:
            if one.target == "client-link" and one.country not in self._links:
                missing.append(f"no fault proxy stands before {one.country}")
            elif found is not None and _is_looked_up(one):
                try:
                    _there(found, one)
                except NoSuchTarget as error:
                    missing.append(str(error))
        if missing:
            raise NoSuchTarget("; ".join(dict.fromkeys(missing)))

    def _follow_plan(self) -> None:
        for one in self._planned:
            if self._leaving.wait(max(0.0, self._began + one.at - time.monotonic())):
                return
            try:
                self._do(one)
            except _EXPECTED as error:
                self._failed(one, str(error))

    def _do(self, one: Planned) -> None:
        if one.action in LINK:
            self._fail_link(one, self._links[one.country])
        elif one.action == "roll-out":
            self._roll_out(one)
        elif one.action == "lock":
            found = Inventory.taken(self._inventory)
            if found.has_process(one.country, "database"):
                self._signal(one, found, signal.SIGSTOP)
            else:
                self._lock_store(one, found.store(one.country))
        else:
            self._signal(one, Inventory.taken(self._inventory), _SIGNALS[one.action])

    def _signal(self, one: Planned, found: Inventory, number: signal.Signals) -> None:
        pids = found.pids(one.country, one.target)
        process = found.process(pids[one.draw % len(pids)])
        if number is signal.SIGSTOP:
            # Held before it is stopped: to go on harms nobody who never stood.
            held = self._hold(one, process.resume, pid=process.pid)
            process.send_signal(number)
            self._go_on_later(one, held)
        else:
            at = self._tell(one, pid=process.pid)
            process.send_signal(number)
            self._start(lambda: self._watch(one, at, process.pid, len(pids)))

    def _lock_store(self, one: Planned, store: Path) -> None:
        connection = sqlite3.connect(f"file:{store}?mode=rw", uri=True, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except BaseException:
            connection.close()
            raise
        # Closing rolls back.
        self._go_on_later(one, self._hold(one, connection.close))

    def _fail_link(self, one: Planned, link: ProxyProcess) -> None:
        options = {"latency": LATENCY, "slice": SLICES}.get(one.action, {})
        held = self._hold(one, lambda: link.tell("heal"))
        link.tell(one.action, **options)
        if one.action in ("reset", "half-close") and one.for_s is None:
            # Those in flight only: who comes back is served.
            self._go_on(one, held)
        else:
            self._go_on_later(one, held)

    def _roll_out(self, one: Planned) -> None:
        line = (*self._roll_out_command, "--country", one.country)
        command = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        at = self._tell(one, pid=command.pid, command=" ".join(line))
        self._start(lambda: self._watch_roll_out(one, at, command))

    def _watch_roll_out(self, one: Planned, at: float, command: subprocess.Popen[str]) -> None:
        errors, ends = "", float("inf")
        while command.returncode is None:
            if self._leaving.is_set():
                ends = min(ends, time.monotonic() + ROLL_OUT_LEFT_S)
            if time.monotonic() > ends:
                command.terminate()
            with suppress(subprocess.TimeoutExpired):
                _, errors = command.communicate(timeout=0.5)
        if command.returncode == 0:
            self._recovered(one, at)
        else:
            last = (errors.strip().splitlines() or [""])[-1]
            self._failed(one, f"{' '.join(self._roll_out_command)} ended with {command.returncode}: {last}")

    def _watch(self, one: Planned, at: float, pid: int, before: int) -> None:
        """Wait until as many are there as were, without the one that was ended."""
        ends = time.monotonic() + RECOVERY_S
        while time.monotonic() < ends and not self._leaving.wait(self._poll_s):
            with suppress(NoSuchTarget):
                found = Inventory.taken(self._inventory)
                pids = found.pids(one.country, one.target)
                if pid not in pids and len(pids) >= before and found.ready(one.country):
                    self._recovered(one, at, pid=pid)
                    return

    def _hold(self, one: Planned, release: Callable[[], object], **facts: Any) -> _Held:
        held = _Held(release, self._tell(one, **facts), facts, one)
        with self._lock:
            self._held.append(held)
        return held

    def _go_on_later(self, one: Planned, held: _Held) -> None:
        """After its time; without one, when the block is left."""
        if self._leaving.is_set():
            self._go_on(one, held)
        elif one.for_s is not None:
            self._start(lambda: self._go_on_after(one, held))

    def _go_on_after(self, one: Planned, held: _Held) -> None:
        self._leaving.wait(one.for_s)
        self._go_on(one, held)

    def _go_on(self, one: Planned, held: _Held) -> None:
        try:
            if held.release():
                self._recovered(one, held.at, **held.facts)
        except _EXPECTED as error:
            self._failed(one, f"cannot be set going again: {error}")

    def _release_all(self) -> None:
        with self._lock:
            held = list(self._held)
        for each in held:
            self._go_on(each.planned, each)

    def _recovered(self, one: Planned, at: float, **facts: Any) -> None:
        now = time.monotonic() - self._began
        self._write(Event(now, "recovery", _what(one), {**_facts(one), **facts, "fault_at": at, "recovered_at": now}))

    def _failed(self, one: Planned, error: str) -> None:
        self.problems.append(f"{_what(one)}: {error}")
        self._tell(one, error=error)

    def _tell(self, one: Planned, **facts: Any) -> float:
        """Write that it happens now; returns when that is."""
        now = time.monotonic() - self._began
        self._write(Event(now, "fault", _what(one), {**_facts(one), **facts}))
        return now

    def _write(self, event: Event) -> None:
        with self._lock, (self._folder / EVENTS).open("ab") as file:
            file.write(orjson.dumps(asdict(event)) + b"\n")

    def _start(self, work: Callable[[], object]) -> None:
        thread = threading.Thread(target=work, name="mischief", daemon=True)
        self._threads.append(thread)
        thread.start()


class _Held:
    """Something that has to be set going again, once."""

    def __init__(self, release: Callable[[], object], at: float, facts: Mapping[str, Any], planned: Planned) -> None:
        self.at = at
        self.facts = facts
        self.planned = planned
        self._release: Callable[[], object] | None = release
        self._lock = threading.Lock()

    def release(self) -> bool:
        """Whether it was this call that did it."""
        with self._lock:
            release, self._release = self._release, None
        if release is not None:
            release()
        return release is not None


def _is_looked_up(one: Planned) -> bool:
    return one.target in PROCESSES


def _there(found: Inventory, one: Planned) -> None:
    """Raises :class:`NoSuchTarget` where there is nothing for it to happen to."""
    if one.action == "lock" and not found.has_process(one.country, "database"):
        found.store(one.country)
    else:
        found.pids(one.country, one.target)


def _facts(one: Planned) -> dict[str, Any]:
    return {name: value for name, value in asdict(one).items() if name not in ("at", "draw") and value is not None}


def _what(one: Planned) -> str:
    return (
        f"{one.action} of {one.country}" if one.target == "country" else f"{one.action} {one.target} of {one.country}"
    )
