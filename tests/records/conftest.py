from __future__ import annotations

from pathlib import Path

import pytest

from serving.records.audit import Limits
from tests.records.falsified import Log
from tests.records.logs import Clock, Home, answered, refusal


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    """Some forty records in three segments, with checkpoints, the last line being no checkpoint."""
    home, clock = Home(tmp_path_factory.mktemp("true")), Clock()
    writer = home.log(Limits(segment_bytes=5_000, checkpoint_records=9), clock)
    for number in range(12):
        clock.now += 1000 if number != 6 else -9000
        writer.append([refusal(number), answered(number).record(), refusal(number)])
    segments = {path.name: tuple(path.read_bytes().splitlines(keepends=True)) for path in home.segments()}
    assert len(segments) == 3
    return Log(segments, (home.directory / "head.jws").read_bytes(), home.keys.public(), home)
