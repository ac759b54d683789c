"""What kernels on CPUs share: how they are compiled, and on how many threads they run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch

from kernels import threads
from kernels.nucleus import cpu

ROOT = Path(__file__).parents[2]


def test_without_a_folder_for_the_cache_it_compiles_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = numba.njit, []

    def njit(**options: Any) -> Any:
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba, "njit", njit)
    assert threads.compiled(lambda one: one + 1)(np.int64(1)) == 2
    assert [options.get("cache", False) for options in asked] == [True, False]


ADDS, CALLS = "from kernels.threads import compiled\n", "from inner import added\n"


def test_what_is_compiled_into_it_is_part_of_what_it_is(tmp_path: Path) -> None:
    """A release may change one file only, and what was cached before it is then of the old one."""
    inner, outer = tmp_path / "inner.py", tmp_path / "outer.py"
    twice = "@compiled\ndef twice(one):\n    return 2 * added(one)\n\n"
    outer.write_text(f"{ADDS}{CALLS}\n{twice}print(twice(1), len(twice.stats.cache_hits))")
    found = []
    for number in (1, 1, 5):
        inner.write_text(f"{ADDS}\n@compiled\ndef added(one):\n    return one + {number}\n")
        done = subprocess.run(
            [sys.executable, str(outer)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(done.stdout.split())
    assert found == [["4", "0"], ["4", "1"], ["12", "0"]]


@pytest.mark.parametrize(
    ("torchs", "numbas", "parts", "expected"), [(4, 4, 9, 4), (4, 2, 9, 2), (2, 4, 9, 2), (4, 4, 3, 3), (4, 4, 1, 1)]
)
def test_as_many_as_torch_uses_and_no_more_than_there_is_work_for(
    monkeypatch: pytest.MonkeyPatch, torchs: int, numbas: int, parts: int, expected: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: torchs)
    monkeypatch.setattr(threads, "_started", numbas)
    assert threads.threads(parts) == expected


def test_no_more_are_started_than_numba_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 3)
    monkeypatch.setattr(threads, "_started", 0)
    assert [threads.threads(parts) for parts in (1, 9)] == [1, 3]
    assert threads._started == 3


@pytest.mark.parametrize(("numbas", "expected"), [(2, 1), (0, 0)])
def test_a_forked_child_has_none_of_those_that_were_started(
    monkeypatch: pytest.MonkeyPatch, numbas: int, expected: int
) -> None:
    monkeypatch.setattr(threads, "_started", numbas)
    child = os.fork()
    if not child:
        os._exit(threads._started)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == expected


def test_threads_that_cannot_be_started_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise ValueError("No threading layer could be loaded.")

    monkeypatch.setattr(threads, "_now", fail)
    for _ in range(2):
        with pytest.raises(ValueError, match="threading layer"), threads.Launching(2):
            raise AssertionError("it was entered")
        assert not threads._one_at_a_time.locked()


def test_cores_that_numba_does_not_know_of_are_mentioned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: numba.config.NUMBA_NUM_THREADS + 1)
    cpu.warm()
    assert "set NUMBA_NUM_THREADS" in caplog.text
    assert {record.name for record in caplog.records} == {"kernels.threads"}
