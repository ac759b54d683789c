"""The Ray cluster of one machine: a head that serves nobody, and one labelled raylet a country.

For clusters of more machines see ``serving/deploy``; the applications are the same there.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from serving.cli.ports import LOOPBACK, free_port
from serving.cli.processes import MARK, end, mark, ours, temporary
from serving.engine import cores
from serving.placement import CORES_LABEL, COUNTRY_LABEL
from serving.settings import OFFLINE, SILENCE, Settings
from tenants.private import create_private

OBJECT_STORE_BYTES = 80 * 1024 * 1024
"""Near the least that Ray takes: no request passes through an object store."""
NODE_CPUS = 64
"""A count that Ray subtracts from; cores are divided by label, not by this."""
STOP_GRACE_S = 3.0

_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
LOOPBACK_ONLY = {_CLUSTERS: "0"}
"""Ray stays at 127.0.0.1, where it otherwise takes the machine's outward address and listens on every interface."""
ADDS_NODES = {_CLUSTERS: "1"}
"""Without it ``ray start`` adds no node; see :mod:`serving.cli.loopback_ray`."""


class ClusterError(Exception):
    """Ray did not start, or cannot be reached. The text says where to look."""


@dataclass(frozen=True, slots=True)
class Record:
    """What ``up`` writes down for ``status`` and ``down``."""

    address: str
    applied: dict[str, str]
    """Country code to the digest of what was deployed."""


class LocalCluster:
    """Starts, finds and ends the cluster whose state lives under one home."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = settings.run / "cluster.json"
        self._token = settings.run / "ray.token"

    def record(self) -> Record | None:
        try:
            return Record(**json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, record: Record) -> None:
        draft = self._file.with_suffix(".draft")
        draft.write_text(json.dumps({"address": record.address, "applied": record.applied}))
        draft.rename(self._file)

    def note(self, applied: Mapping[str, str]) -> None:
        """Write down what runs by now beside what is written down already."""
        record = self.record()
        if record is None:
            raise ClusterError("the cluster's record cannot be read")
        self.write(Record(record.address, {**record.applied, **applied}))

    def environment(self) -> dict[str, str]:
        """What every process of the cluster, and every driver that joins it, has in its environment."""
        return {
            **SILENCE,
            **OFFLINE,
            **LOOPBACK_ONLY,
            MARK: mark(self._settings.home),
            "DOMICILE_HOME": str(self._settings.home),
            "DOMICILE_COUNTRIES": str(self._settings.countries),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token),
            # A worker that was started ahead of need is a hundred megabytes that nobody asked for.
            # Ray makes its workers nicer than anything else on the machine: engines and gateways are the service.
            "RAY_worker_niceness": "0",
            "RAY_prestart_worker_first_driver": "0",
            "RAY_enable_worker_prestart": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            # Serve looks at all it runs ten times a second: three hundredths of a core that engines compute on.
            # With once a second a country's door answered 503 while its replica was replaced (decision 36).
            "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.3",
            # What Ray counts about itself nobody reads here; counting it woke a core that engines compute on
            # (docs/decisions/0035).
            "RAY_enable_metrics_collection": "0",
            "RAY_event_stats": "0",
            "RAY_task_events_report_interval_ms": "0",
            "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "10000",
            "REPORTER_UPDATE_INTERVAL_MS": "60000",
            # It looks at the machine's memory four times a second otherwise.
            "RAY_memory_monitor_refresh_ms": "1000",
            "PYTHONUNBUFFERED": "1",
        }

    def enter(self) -> None:
        """Give this process the cluster's environment. Before Ray is imported: Ray reads it then, once."""
        os.environ.update(self.environment())

    def processes(self) -> list[psutil.Process]:
        return ours(self._settings.home)

    def raylets(self) -> dict[str, int]:
        """Country code to the process id of its living raylet; the head's is under ``""``."""
        found = {}
        for process in self.processes():
            with _vanishing():
                line = process.cmdline()
                if Path(line[0]).name == "raylet" if line else False:
                    found[_labelled(line)] = process.pid
        return found

    def start_head(self) -> str:
        """Start the head. Returns the cluster's address."""
        self._settings.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._token.unlink(missing_ok=True)
        create_private(self._token, secrets.token_hex(32).encode())
        port = free_port()
        head = [
            "--head",
            f"--port={port}",
            "--num-cpus=0",
            "--include-dashboard=false",
            "--no-monitor",
            # It reads logs aloud to drivers, and ours do not listen (`log_to_driver`).
            "--include-log-monitor=false",
            f"--ray-client-server-port={free_port()}",
        ]
        self.finish(self._spawn(head, "head"), "the head")
        self._end_client_server()
        address = f"{LOOPBACK}:{port}"
        self.write(Record(address, {}))
        return address

    def start_raylet(self, address: str, country: str, own_cores: Sequence[int]) -> subprocess.Popen[bytes]:
        """Begin to start a country's raylet. See :meth:`finish`."""
        labels = f"{COUNTRY_LABEL}={country},{CORES_LABEL}={cores.label(own_cores)}"
        return self._spawn(
            [f"--address={address}", f"--num-cpus={NODE_CPUS}", f"--labels={labels}", "--include-log-monitor=false"],
            country,
        )

    def finish(self, starting: subprocess.Popen[bytes], what: str) -> None:
        output, _ = starting.communicate(timeout=120)
        if starting.returncode != 0:
            tail = output.decode(errors="replace").strip().splitlines()[-5:]
            raise ClusterError(f"Ray did not start {what}:\n" + "\n".join(tail))

    def stop_raylets(self, countries: Sequence[str]) -> int:
        """End the nodes of some countries; what ran on them ends with them."""
        running = self.raylets()
        wanted = [psutil.Process(running[code]) for code in countries if code in running]
        children = [child for one in wanted for child in one.children(recursive=True)]
        record = self.record()
        if record is not None:
            applied = {code: digest for code, digest in record.applied.items() if code not in countries}
            self.write(Record(record.address, applied))
        return end([*wanted, *children], STOP_GRACE_S)

    def stop(self) -> int:
        """End every process of ours, and nobody else's. Returns how many there were."""
        count = end(self.processes(), STOP_GRACE_S)
        while leftovers := self.processes():
            count += end(leftovers, STOP_GRACE_S)
        self._file.unlink(missing_ok=True)
        return count

    def _end_client_server(self) -> None:
        """Ray starts a door for remote drivers that it has no option to leave closed."""
        for process in self.processes():
            with _vanishing():
                if "ray.util.client.server" in process.cmdline():
                    process.kill()

    def _spawn(self, options: list[str], node: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "serving.cli.loopback_ray",
                "start",
                *options,
                f"--node-ip-address={LOOPBACK}",
                f"--object-store-memory={OBJECT_STORE_BYTES}",
                "--disable-usage-stats",
                f"--temp-dir={self._temporary(node)}",
            ],
            env={**self._inherited(), **ADDS_NODES},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _inherited(self) -> Mapping[str, str]:
        return {**os.environ, **self.environment()}

    def _temporary(self, node: str) -> Path:
        """A node's session folder: its own, so that two raylets that start at once never want the same socket."""
        folder = temporary(self._settings.home) / node
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder


def _labelled(line: Sequence[str]) -> str:
    """The country in a raylet's command line; empty for the head."""
    whole = " ".join(line)
    _, found, rest = whole.partition(f'{COUNTRY_LABEL}"')
    if not found:
        _, found, rest = whole.partition(f"{COUNTRY_LABEL}")
    return "".join(char for char in rest[:8] if char.isalpha()) if found else ""


@contextmanager
def _vanishing() -> Iterator[None]:
    """Processes come and go while one looks at them."""
    try:
        yield
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return
