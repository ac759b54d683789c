"""What is shown while a run runs."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from rich.console import Console

from loadtests.record import OURS, REQUESTS, Arrival, Kind, Outcome, Record, Sample
from loadtests.running.folder import add
from loadtests.running.live import WINDOW_S, Board, Tail, Watch, quantile
from loadtests.schedule import Schedule, Span


def arrival(serial: int, at: float, country: str = "ee") -> Arrival:
    return Arrival(serial, at, "steady", OURS, country, "acme", Kind.CHAT, 10, 5)


def record(serial: int, ended: float, **changes: object) -> Record:
    made = Record(
        serial=serial,
        phase="steady",
        side=OURS,
        country="ee",
        organisation="acme",
        service_class="standard",
        kind=Kind.CHAT,
        intended=ended - 1.0,
        sent=ended - 1.0,
        first=ended - 0.8,
        ended=ended,
        outcome=Outcome.FINISHED,
        status=200,
        code="",
        retry_after_s=None,
        prompt_tokens=10,
        cached_tokens=0,
        output_tokens=5,
        finish_reason="stop",
        gaps=((0.2, 1), (0.6, 3)),
        terminals=1,
        said_country="ee",
        request_id="r",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def watched(folder: Path, *records: Record, offered: int = 40) -> Watch:
    with (folder / REQUESTS).open("ab") as file:
        file.writelines(one.to_json() + b"\n" for one in records)
    arrivals = tuple(arrival(serial, serial * 0.5) for serial in range(offered))
    return Watch(folder, Schedule(arrivals, (), (Span("steady", OURS, 0.0, 20.0, True),), 20.0, ()))


def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    tail = Tail(path, bytes.upper)
    assert list(tail) == []
    path.write_bytes(b"one\ntw")
    assert list(tail) == [b"ONE"]
    assert list(tail) == []
    with path.open("ab") as file:
        file.write(b"o\nthree\n")
    assert list(tail) == [b"TWO", b"THREE"]


def test_the_figures_are_those_of_the_last_seconds(tmp_path: Path) -> None:
    old = record(0, 1.0, first=0.9)
    lately = [record(serial, 15.0 + serial / 10) for serial in range(1, 5)]
    refused = record(5, 15.0, outcome=Outcome.REFUSED, first=None, gaps=())
    failed = record(6, 15.0, outcome=Outcome.FAILED, first=None, gaps=())
    watch = watched(tmp_path, old, *lately, refused, failed)
    watch.read(16.0)
    found = watch.figures((OURS, "ee"), 16.0)
    assert found.offered == pytest.approx(2.0)
    assert found.in_flight == 33 - 7
    assert found.first_token_p50 == pytest.approx(0.2)
    assert found.inter_token_p95 == pytest.approx(0.2)
    assert found.tokens_per_s == pytest.approx(4 * 5 / WINDOW_S)
    assert (found.refused, found.failed) == (1, 1)


def test_nothing_yet_is_not_zero(tmp_path: Path) -> None:
    watch = watched(tmp_path)
    watch.read(-2.0)
    assert watch.figures((OURS, "ee"), -2.0).first_token_p50 is None
    assert watch.phase(-2.0) == "starting"
    assert watch.phase(3.0) == "steady"
    assert watch.phase(21.0) == "waiting for the last answers"


def test_quantiles() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile(list(map(float, range(100))), 0.95) == 95.0


@pytest.mark.parametrize("terminal", [True, False])
def test_people_and_logs_read_the_same(terminal: bool, tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=160, highlight=False)
    watch = watched(tmp_path, record(1, 11.0, outcome=Outcome.FAILED), record(2, 11.0))
    add(tmp_path, Sample(11.0, "generator", {"in_flight": 7, "lag_p99_s": 0.002}))
    with Board(watch, 20.0, console, "steady") as board:
        board.show(12.0)
        if terminal:
            assert board._live is not None
            board._live.refresh()
    said = out.getvalue()
    for part in ("steady", "ee", "2.0", "200 ms", "12 of 20 s"):
        assert part in said
    assert ("lag p99 2 ms" in said) == terminal


def test_no_line_is_lost_between_writers(tmp_path: Path) -> None:
    for at in range(3):
        add(tmp_path, Sample(at, "machine", {"cpu": 0.5}))
    lines = (tmp_path / "samples.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["at"] for line in lines] == [0, 1, 2]
