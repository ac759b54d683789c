"""Being told to stop: SIGINT and SIGTERM become something that a loop can ask about, and wait for."""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Told(AbstractContextManager["Told"]):
    """Within the block, the signals end nothing by themselves. Off the main thread it never hears any."""

    def __init__(self) -> None:
        self.by: str | None = None
        """The signal's name, once it came."""
        self._came = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Told:
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._hear) for one in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def wait(self, seconds: float) -> None:
        """Until told, or for so long."""
        self._came.wait(seconds)

    def _hear(self, number: int, _: FrameType | None) -> None:
        self.by = self.by or signal.Signals(number).name
        self._came.set()
