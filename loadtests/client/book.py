"""Keeps a run's files while Locust runs it, and has the report written where nobody else will."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen

import orjson

from loadtests.client.clock import read_clock
from loadtests.client.order import Order, Plan
from loadtests.client.writer import Writer
from loadtests.record import PLAN, Event, Sample
from loadtests.running.folder import new_salt
from tenants.errors import Problem, TenantError

logger = logging.getLogger(__name__)


class Book:
    """Writes down what a run does: alone for itself, or for its workers."""

    def __init__(self, order: Order, plan: Plan, folder: Path | None, head_start_s: float) -> None:
        self.own = folder is None
        self.folder = folder or own_folder(order)
        # What is recorded of a load is nobody else's business.
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.clock = read_clock(self.folder, head_start_s)
        self.salt = _salt(self.folder)
        self._phases = [] if order.only_capacity else list(plan.schedule.phases)
        self._writer = Writer(self.folder)

    def note(self, lines: list[bytes], figures: Mapping[str, float] | None) -> None:
        """Records that ended, and how the generator does; phases that have begun."""
        now = self.clock.now()
        while self._phases and self._phases[0].begin <= now:
            span = self._phases.pop(0)
            facts = {"side": span.side, "begin": span.begin, "end": span.end, "judged": span.judged}
            self._writer.event(Event(span.begin, "phase", span.name, facts))
        self._writer.records(lines)
        if figures is not None and now >= 0:
            self._writer.sample(Sample(now, "generator", figures))

    def interrupted(self, why: str) -> None:
        self._writer.event(Event(self.clock.now(), "interruption", why))

    def close(self) -> None:
        self._writer.close()
        if self.own:
            # In a process of its own: plots take seconds, and the web page must stay alive meanwhile.
            Popen([sys.executable, "-m", "loadtests", "report", str(self.folder)], cwd=Path(__file__).parents[2])
            logger.info("The report will be in %s", self.folder)


def _salt(folder: Path) -> int:
    """The plan's, or one of its own where there is no plan."""
    try:
        return int(orjson.loads((folder / PLAN).read_bytes())["salt"])
    except (OSError, KeyError, ValueError):
        return new_salt()


def own_folder(order: Order) -> Path:
    """A run's folder where nobody named one. Raises :class:`tenants.errors.TenantError`."""
    from loadtests import run  # beside the plots and the chaos, which a worker never needs

    if order.only_capacity:
        raise TenantError(Path("locustfile.py"), [Problem("", "--only-capacity needs a --run-folder")])
    folder = Path("reports") / f"loadtest-{time.strftime('%Y%m%d-%H%M%S')}"
    scenario, targets = order.read()
    run.begin(scenario, targets, order.seed_of(scenario), order.capacity, folder)
    return folder
