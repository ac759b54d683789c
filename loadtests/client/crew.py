"""A run under Locust: alone, or as a master that writes for its workers, or as one of them.

Messages: the master sends ``loadtest-begin`` to every worker (the order, its place among them, and time zero) and
``loadtest-halt`` when the run is cut short; a worker sends ``loadtest-work`` every second: the records that ended
since, its figures, and whether it is done. Keys do not travel: every machine has the targets file at the same path.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import gevent
import orjson
from locust.env import Environment
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from loadtests.client.book import Book
from loadtests.client.clock import heard, told
from loadtests.client.desk import Clock, Desk
from loadtests.client.generator import Generator
from loadtests.client.meter import Meter
from loadtests.client.order import Order, Plan
from loadtests.client.watched import watched
from loadtests.record import Kind, Record
from loadtests.users import USERS, LlmUser
from tenants.errors import TenantError

BEGIN, WORK, HALT = "loadtest-begin", "loadtest-work", "loadtest-halt"
TICK_S = 1.0
HEAD_START_S = 1.0
"""Between the start and time zero, where nobody else has named it."""
HALT_S = 15.0
"""How long the master waits for its workers' last records."""
_WORST = ("lag_p50_s", "lag_p99_s")
"""Figures of which the worst worker's counts; the others add up."""

logger = logging.getLogger(__name__)


class Work:
    """The sending of one process: its own share of a run."""

    def __init__(
        self, environment: Environment, plan: Plan, clock: Clock, order: Order, salt: int, index: int, of: int
    ) -> None:
        self.over = False
        self._drain_s = plan.scenario.drain_s
        self._lines: list[bytes] = []
        self._users: dict[Kind, LlmUser] = {user.kind: user(environment) for user in USERS}
        meter = Meter()
        self._desk = Desk(plan.targets, clock, self._ended, read=watched, late=meter.late, exact=order.exact, salt=salt)
        self.generator = Generator(plan.schedule, self._desk, self._users, meter, index, of)
        self._sending = gevent.spawn(self._run)

    def lines(self) -> list[bytes]:
        """The records since they were last taken."""
        lines, self._lines = self._lines, []
        return lines

    def halt(self) -> None:
        """End it now; what is under way is recorded as aborted."""
        self.generator.halt()
        self._sending.join(timeout=HALT_S)
        self.over = True

    def _run(self) -> None:
        try:
            self.generator.run(self._drain_s)
        finally:
            self._desk.close()
            self.over = True

    def _ended(self, record: Record) -> None:
        self._lines.append(orjson.dumps(record))
        self._users[record.kind].tell(record)


class Crew(Protocol):
    """What a Locust process does in a run."""

    over: bool

    def start(self) -> None: ...
    def halt(self) -> None: ...


class Alone:
    """Sends and writes."""

    def __init__(self, environment: Environment, order: Order, folder: Path | None) -> None:
        self._environment, self._order, self._folder = environment, order, folder
        self.over = False

    def start(self) -> None:
        plan = self._order.plan()
        self._book = Book(self._order, plan, self._folder, HEAD_START_S)
        self._work = Work(self._environment, plan, self._book.clock, self._order, self._book.salt, 0, 1)
        self._ticks = gevent.spawn(self._tick)

    def halt(self) -> None:
        if self.over:
            return
        if not self._work.over:
            self._book.interrupted("the load test was stopped")
        self._ticks.kill()
        self._work.halt()
        self._note()
        self._finish()

    def _tick(self) -> None:
        over = False
        while not over:
            gevent.sleep(TICK_S)
            over = self._work.over
            self._note()
        self._finish()

    def _note(self) -> None:
        self._book.note(self._work.lines(), self._work.generator.figures())

    def _finish(self) -> None:
        self._book.close()
        self.over = True


class Master:
    """Writes what its workers send."""

    def __init__(self, environment: Environment, order: Order, folder: Path | None) -> None:
        self._runner = cast(MasterRunner, environment.runner)
        self._order, self._folder = order, folder
        self._pending: list[bytes] = []
        self._figures: dict[str, Mapping[str, float]] = {}
        self._at_work: set[str] = set()
        self.over = False

    def start(self) -> None:
        began = time.monotonic()
        plan = self._order.plan()
        # The workers have to make the same plan, on machines that are perhaps slower.
        head_start_s = HEAD_START_S + 2 * (time.monotonic() - began)
        self._book = Book(self._order, plan, self._folder, head_start_s)
        ready = [client.id for client in self._runner.clients.all if client.state != STATE_MISSING]
        self._at_work = set(ready)
        for index, client in enumerate(ready):
            told_it = {
                "order": self._order.to_json(),
                "salt": self._book.salt,
                "index": index,
                "of": len(ready),
                "clock": told(self._book.clock),
            }
            self._runner.send_message(BEGIN, told_it, client_id=client)
        self._ticks = gevent.spawn(self._tick)

    def heard(self, client: str, work: Mapping[str, Any]) -> None:
        """One worker's last second."""
        self._pending += work["lines"]
        self._figures[client] = work["figures"]
        if work["over"]:
            self._at_work.discard(client)

    def halt(self) -> None:
        if self.over:
            return
        self._ticks.kill()
        if self._at_work:
            self._book.interrupted("the load test was stopped")
            self._runner.send_message(HALT)
        until = time.monotonic() + HALT_S
        while self._at_work and time.monotonic() < until:
            gevent.sleep(0.05)
        self._note()
        self._finish()

    def _tick(self) -> None:
        working = True
        while working:
            gevent.sleep(TICK_S)
            working = bool(self._at_work)
            self._note()
            for client in list(self._at_work):
                if client not in self._runner.clients or self._runner.clients[client].state == STATE_MISSING:
                    self._book.interrupted(f"the worker {client} is lost, and its requests with it")
                    self._at_work.discard(client)
        self._finish()

    def _note(self) -> None:
        lines, self._pending = self._pending, []
        self._book.note(lines, together(list(self._figures.values())) if self._figures else None)

    def _finish(self) -> None:
        self._book.close()
        self.over = True


class Worker:
    """Sends what its master says, and tells it."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._runner = cast(WorkerRunner, environment.runner)
        self._work: Work | None = None
        self.over = False

    def start(self) -> None:
        """The master says when: see :meth:`begin`."""

    def begin(self, message: Mapping[str, Any]) -> None:
        order = Order(**message["order"])
        try:
            clock, index, of = heard(message["clock"]), message["index"], message["of"]
            self._work = Work(self._environment, order.plan(), clock, order, message["salt"], index, of)
        except TenantError as error:
            logger.error("%s", error)
            self._runner.send_message(WORK, {"lines": [], "figures": {}, "over": True})
            return
        self._ticks = gevent.spawn(self._tick, self._work)

    def halt(self) -> None:
        if self._work is not None:
            self._ticks.kill()
            self._work.halt()
            self._tell(self._work)
            self._work = None

    def _tick(self, work: Work) -> None:
        over = False
        while not over:
            gevent.sleep(TICK_S)
            over = self._tell(work)

    def _tell(self, work: Work) -> bool:
        """Returns whether that was all."""
        over = work.over
        told_it = {"lines": work.lines(), "figures": work.generator.figures(), "over": over}
        self._runner.send_message(WORK, told_it)
        return over


def together(figures: list[Mapping[str, float]]) -> dict[str, float]:
    """The figures of several workers as one generator's."""
    names = {name for one in figures for name in one}
    return {
        name: (max if name in _WORST else sum)(one[name] for one in figures if name in one) for name in sorted(names)
    }
