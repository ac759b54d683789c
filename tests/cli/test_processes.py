"""Which processes are found again as those that ``up`` started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.cli.processes import MARK, mark, ours, temporary

WAITS = "import sys; log = open(sys.argv[1], 'w'); print(flush=True); sys.stdin.read()"


@contextmanager
def running(title: str, log: Path, environment: dict[str, str]) -> Iterator[int]:
    """A process that goes by a name of its own and holds a log open."""
    process = subprocess.Popen(
        [title, "-c", WAITS, str(log)],
        executable=sys.executable,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    logs = temporary(tmp_path) / "head"
    logs.mkdir(parents=True)
    yield tmp_path
    for path in logs.iterdir():
        path.unlink()
    logs.rmdir()
    logs.parent.rmdir()


def test_what_inherited_the_mark_is_ours(home: Path) -> None:
    with running("anything", home / "log", {MARK: mark(home)}) as pid:
        assert [process.pid for process in ours(home)] == [pid]


def test_an_agent_that_wiped_its_environment_is_known_by_its_log(home: Path) -> None:
    with running("ray::DashboardAgent", temporary(home) / "head" / "agent.log", {}) as pid:
        assert [process.pid for process in ours(home)] == [pid]


@pytest.mark.parametrize("title", ["ray::DashboardAgent", "tail"])
def test_strangers_are_not_ours(home: Path, tmp_path: Path, title: str) -> None:
    """Somebody else's Ray, and somebody who reads our logs."""
    other = Path(f"{temporary(home)}-other.log") if title.startswith("ray") else temporary(home) / "head" / "agent.log"
    try:
        with running(title, other, {MARK: mark(home / "another"), "PATH": os.defpath}):
            assert ours(home) == []
    finally:
        other.unlink()
