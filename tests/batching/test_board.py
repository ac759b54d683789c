"""The shared numbers between the engine's scheduler and the pacer."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from serving.batching.board import Board, Reading

READING = Reading(0.02, 0.001, 0.002, 1e-6, 0.1, 40, 1200, 7, 3000, 12.5)


def test_what_one_process_writes_another_reads(tmp_path: Path) -> None:
    path = tmp_path / "board"
    board = Board(path, create=True)
    assert board.read() == Reading()
    imports = "from pathlib import Path; from serving.batching.board import Board, Reading"
    writer = f"{imports}; Board(Path({str(path)!r})).write({READING!r})"
    subprocess.run([sys.executable, "-c", writer], check=True, timeout=60)
    assert board.read() == READING


def test_it_is_the_owner_s_alone_and_never_another_file(tmp_path: Path) -> None:
    path = tmp_path / "board"
    Board(path, create=True)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with pytest.raises(FileExistsError):
        Board(path, create=True)


def test_a_writer_that_died_halfway_holds_nobody_up(tmp_path: Path) -> None:
    board = Board(tmp_path / "board", create=True)
    board.write(READING)
    board._map[0] = board._map[0] + 1  # the version that a write begins with
    assert board.read() == READING


def test_the_engine_hears_from_another_process_how_many_wait_before_it(tmp_path: Path) -> None:
    path = tmp_path / "board"
    board = Board(path, create=True)
    board.write(READING)
    assert board.crowd() == 0
    imports = "from pathlib import Path; from serving.batching.board import Board"
    writer = f"{imports}; Board(Path({str(path)!r})).tell_crowd(7)"
    subprocess.run([sys.executable, "-c", writer], check=True, timeout=60)
    assert (board.crowd(), board.read()) == (7, READING)


def test_it_is_removed_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "board"
    Board(path, create=True).close(remove=True)
    assert not path.exists()
