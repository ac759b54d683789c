"""A run while it runs: a bar and a table for people, a line now and then where nobody watches.

What is shown is read from the growing ``requests.jsonl``, so it is what the verdict will be made of.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import orjson
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from loadtests.record import REQUESTS, SAMPLES, Outcome, Record, Sample
from loadtests.schedule import Schedule

WINDOW_S = 10.0
"""Over how long the table's figures are taken. Longer than an answer, shorter than a phase."""
PLAIN_EVERY_S = 10.0
CAPACITY = "capacity"

Line = TypeVar("Line")
Place = tuple[str, str]
"""A side's name and a country's code."""


class Tail(Generic[Line]):
    """What has been added to a file of lines since it was last asked. A line still being written waits."""

    def __init__(self, path: Path, read: Callable[[bytes], Line]) -> None:
        self._path = path
        self._read = read
        self._offset = 0
        self._rest = b""

    def __iter__(self) -> Iterator[Line]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return
        self._offset += len(added)
        *lines, self._rest = (self._rest + added).split(b"\n")
        yield from map(self._read, lines)


@dataclass(frozen=True, slots=True)
class Figures:
    """How a country does, over the last :data:`WINDOW_S`; counts are since the beginning."""

    offered: float
    """Requests a second that were to be sent."""
    in_flight: int
    first_token_p50: float | None
    first_token_p95: float | None
    inter_token_p95: float | None
    tokens_per_s: float
    refused: int
    failed: int


class Watch:
    """Reads along."""

    def __init__(self, folder: Path, schedule: Schedule) -> None:
        self._records = Tail(folder / REQUESTS, Record.from_json)
        self._samples = Tail(folder / SAMPLES, lambda line: Sample(**orjson.loads(line)))
        self._phases = schedule.phases
        self._due: dict[Place, list[float]] = defaultdict(list)
        for arrival in schedule.arrivals:
            self._due[arrival.side, arrival.country].append(arrival.at)
        self._closed = schedule.loops
        self._serials = frozenset(arrival.serial for arrival in schedule.arrivals)
        self._recent: dict[Place, deque[Record]] = defaultdict(deque)
        self._ended: dict[Place, int] = defaultdict(int)
        self._outcomes: dict[tuple[Place, Outcome], int] = defaultdict(int)
        self.generator: Mapping[str, float] = {}
        """The load generator's last word on itself."""

    @property
    def places(self) -> list[Place]:
        return sorted({*self._due, *((loop.side, loop.country) for loop in self._closed)})

    def read(self, now: float) -> None:
        """Take in what was written since. ``now`` in seconds since the run began."""
        for record in self._records:
            place = record.side, record.country
            self._recent[place].append(record)
            self._ended[place] += record.serial in self._serials
            self._outcomes[place, record.outcome] += 1
        for sample in self._samples:
            if sample.source == "generator":
                self.generator = sample.values
        for recent in self._recent.values():
            while recent and recent[0].ended < now - WINDOW_S:
                recent.popleft()

    def phase(self, now: float) -> str:
        """What is going on: the phases' names, since two sides may each be in one."""
        names = dict.fromkeys(span.name for span in self._phases if span.begin <= now < span.end)
        return ", ".join(names) or ("waiting for the last answers" if now > 0 else "starting")

    def figures(self, place: Place, now: float) -> Figures:
        due = self._due[place]
        sent = bisect_right(due, now)
        window = min(WINDOW_S, max(now, 1.0))
        recent = [record for record in self._recent[place] if record.outcome is Outcome.FINISHED]
        first = [one for record in recent if (one := record.first_token_s) is not None]
        inter = [one for record in recent if (one := record.inter_token_s) is not None]
        users = sum(
            loop.users for loop in self._closed if (loop.side, loop.country) == place and loop.begin <= now < loop.end
        )
        return Figures(
            offered=(sent - bisect_right(due, now - window)) / window,
            in_flight=max(0, sent - self._ended[place]) + users,
            first_token_p50=quantile(first, 0.5),
            first_token_p95=quantile(first, 0.95),
            inter_token_p95=quantile(inter, 0.95),
            tokens_per_s=sum(record.output_tokens for record in recent) / window,
            refused=self._outcomes[place, Outcome.REFUSED],
            failed=self._outcomes[place, Outcome.FAILED],
        )


def quantile(values: Sequence[float], share: float) -> float | None:
    """The nearest rank; good enough for a table that is gone in a second."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


class Board(AbstractContextManager["Board"]):
    """Shows a :class:`Watch`: live where the console is a terminal, else a line every :data:`PLAIN_EVERY_S`."""

    def __init__(self, watch: Watch, duration_s: float, console: Console, title: str) -> None:
        self._watch = watch
        self._duration_s = duration_s
        self._console = console
        self._title = title
        self._said = 0.0
        self._live: Live | None = None
        if console.is_terminal and not console.quiet:
            columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[clock]}")
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task(title, total=duration_s, clock="")
            self._live = Live(self._bar, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Board:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, now: float) -> None:
        """Bring it up to date. ``now`` in seconds since the run began."""
        self._watch.read(now)
        if self._live:
            clock = f"{max(0, min(now, self._duration_s)):.0f} of {self._duration_s:.0f} s"
            self._bar.update(self._task, completed=max(0.0, now), clock=clock)
            self._live.update(Group(self._bar, self._table(now)))
        elif now - self._said >= PLAIN_EVERY_S:
            self._said = now
            self._console.print(self._line(now), soft_wrap=True, markup=False)

    def _table(self, now: float) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim", caption=self._caption(), caption_justify="left")
        headings = (
            "",
            "req/s",
            "in flight",
            "first token p50",
            "p95",
            "inter-token p95",
            "tokens/s",
            "refused",
            "failed",
        )
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="right" if number else "left")
        for place in self._watch.places:
            found = self._watch.figures(place, now)
            cells = _seconds(found.first_token_p50), _seconds(found.first_token_p95), _seconds(found.inter_token_p95)
            table.add_row(
                self._name(place),
                f"{found.offered:.1f}",
                str(found.in_flight),
                *cells,
                f"{found.tokens_per_s:.0f}",
                str(found.refused),
                f"[red]{found.failed}[/]" if found.failed else "0",
            )
        table.title, table.title_justify = f"[bold]{self._watch.phase(now)}[/]", "left"
        return table

    def _caption(self) -> str:
        own = self._watch.generator
        if not own:
            return ""
        return f"generator: {own.get('in_flight', 0):.0f} in flight, lag p99 {own.get('lag_p99_s', 0) * 1000:.0f} ms"

    def _line(self, now: float) -> str:
        parts = [f"{now:4.0f} of {self._duration_s:.0f} s  {self._watch.phase(now)}"]
        for place in self._watch.places:
            found = self._watch.figures(place, now)
            parts.append(
                f"{self._name(place)} {found.offered:.1f} req/s, {found.in_flight} in flight, first token p95 "
                f"{_seconds(found.first_token_p95)}, inter-token p95 {_seconds(found.inter_token_p95)}, "
                f"{found.refused} refused, {found.failed} failed"
            )
        return " | ".join(parts)

    def _name(self, place: Place) -> str:
        side, country = place
        several = len({side for side, _ in self._watch.places}) > 1
        return f"{country} {side}" if several else country


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
