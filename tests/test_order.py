"""The real house is up once for all files that use it, and one of them takes it down."""

from __future__ import annotations

from pathlib import Path

JOURNEYS = Path(__file__).parent / "journeys"
LAST = "test_real_life.py"


def test_the_file_that_takes_the_house_down_is_the_last_that_uses_it() -> None:
    names = sorted(file.name for file in JOURNEYS.glob("test_*.py") if "running_house" in file.read_text())
    assert len(names) > 5
    assert names[-1] == LAST
