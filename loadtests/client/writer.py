"""Writes the files of a run while it runs, whole lines at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import orjson

from loadtests.record import EVENTS, REQUESTS, SAMPLES, Event, Sample


class Writer:
    """Appends to a run's files. Every write is of whole lines and goes to the kernel at once, so that nothing is torn
    or lost but with the machine itself; others may append to the same files."""

    def __init__(self, folder: Path) -> None:
        self._files = {name: os.open(folder / name, _APPEND, 0o600) for name in (REQUESTS, SAMPLES, EVENTS)}

    def records(self, lines: Iterable[bytes]) -> None:
        """Records, each as JSON without a line feed."""
        self._append(REQUESTS, lines)

    def sample(self, sample: Sample) -> None:
        self._append(SAMPLES, [orjson.dumps(sample)])

    def event(self, event: Event) -> None:
        self._append(EVENTS, [orjson.dumps(event)])

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files = {}

    def _append(self, name: str, lines: Iterable[bytes]) -> None:
        data = b"".join(line + b"\n" for line in lines)
        while data and self._files:
            data = data[os.write(self._files[name], data) :]


_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
