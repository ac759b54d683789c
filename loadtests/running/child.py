"""The load generator as a process of its own: Locust, without its web page, on our locustfile.

A process of its own because Locust replaces the sockets and threads of the one that it runs in (gevent), and because
what watches a run must not share its processor time with what is measured. Keys are read by it from the targets
file, so none stands on a command line that everybody on the machine can read.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

LOG = "locust.log"
_LOCUSTFILE = Path(__file__).parents[1] / "locustfile.py"
_AHEAD = -10
"""As nice: nine tenths of a core that both want."""
_PATIENCE_S = 20.0
"""How long it may take to record what was in flight and to close its files, once it is told."""


class Generator:
    """A running load generator. Only this child is ever ended, by its own handle."""

    def __init__(
        self, folder: Path, scenario: Path, targets: Path, seed: int, capacity: Mapping[str, float], *options: str
    ) -> None:
        self._log = folder / LOG
        command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--only-summary"]
        # Locust calls a run failed in which any request was; here that is the verdict's to say.
        command += ["--exit-code-on-error", "0"]
        command += ["--scenario", str(scenario), "--targets", str(targets), "--run-folder", str(folder)]
        command += ["--seed", str(seed), *options]
        if capacity:
            command += ["--capacity", *(f"{code}={rate!r}" for code, rate in capacity.items())]
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C is for the run, which tells the generator once.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(), start_new_session=True
            )
        _put_ahead(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> int | None:
        """Its exit status, ``None`` while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Have it record what is in flight as aborted, and wait for it."""
        if self.ended() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def last_words(self) -> str:
        """The last line of its log, to say why it ended."""
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _put_ahead(pid: int) -> None:
    """Have its session scheduled ahead of others, where this user may: it needs little, and needs that at once.

    Linux shares cores between sessions first (sched(7), "The autogroup feature"). Beside engines that compute on all of
    them, a session that sleeps most of the time was seen to wait for a core for up to two seconds once it woke.
    """
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(_AHEAD))


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}
