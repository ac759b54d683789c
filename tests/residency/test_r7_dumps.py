"""R7: a process that serves leaves no dump of its memory, however it dies."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

CRASH = "import os; from serving.replicas import ground; {first}; os.fork() or os.abort(); os.wait()"


def crashed(folder: Path, first: str) -> list[Path]:
    """The files that a process and its child leave where they crash."""
    folder.mkdir()
    process = subprocess.run(
        [sys.executable, "-c", CRASH.format(first=first)],
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
        preexec_fn=_allow_dumps,
        timeout=100,
        check=False,
        capture_output=True,
    )
    assert b"Traceback" not in process.stderr
    return list(folder.iterdir())


def _allow_dumps() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def test_r7_a_crash_leaves_no_dump_where_one_would_be_left(tmp_path: Path) -> None:
    if not crashed(tmp_path / "as-it-comes", "None"):
        pytest.skip("this machine writes no memory dumps into the folder of a process that crashes")
    assert crashed(tmp_path / "as-we-serve", "ground._dump_nothing()") == []
