"""The processes of a bench: each its own Python, spoken to in lines of JSON, ended by its owner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from tests.bench.report import ROOT, CannotMeasure

GRACE_S = 10.0
AHEAD = "-10"


@contextmanager
def put_ahead() -> Iterator[None]:
    """This session scheduled ahead of others meanwhile, where this user may (docs/decisions/0033)."""
    group = Path("/proc/self/autogroup")
    before = group.read_text().split()[-1] if group.exists() else None
    try:
        with suppress(OSError):
            group.write_text(AHEAD)
        yield
    finally:
        if before is not None:
            with suppress(OSError):
                group.write_text(before)


@contextmanager
def stopped(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """These do nothing meanwhile: who is measured beside them has the machine alone (docs/decisions/0035)."""
    held = list(processes)
    try:
        _signal(held, signal.SIGSTOP)
        yield
    finally:
        _signal(held, signal.SIGCONT)


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


class Child:
    """``python -m module``. It says one line of JSON when it is ready, and ends when its standard input does."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._watched = psutil.Process(self._process.pid)
        self.ready = self._heard()

    def ask(self, question: Mapping[str, object]) -> dict[str, Any]:
        """One line there, one line back."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._heard()

    def cpu_s(self) -> float:
        """CPU seconds that the process has taken, in its own code and in the kernel."""
        times = self._watched.cpu_times()
        return float(times.user + times.system)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CannotMeasure(f"{self._module} ended with status {self._process.wait()}")
        heard: dict[str, Any] = json.loads(line)
        return heard
