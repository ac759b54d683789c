"""What the machine's owner decides through the environment, read once, here and nowhere else.

A country's own decisions live in its ``tenant.yaml`` (see :mod:`tenants.country`), not here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tenants

SILENCE = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Told not to report, Ray reports just that. Here nobody listens.
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
}
"""The environment in which nothing phones home (R8)."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""The environment in which no model hub is asked (R8). Everything begins in it."""

ONLINE = dict.fromkeys(OFFLINE, "0")
"""Lifts that again, for what serves a tenant that allows hubs and for nothing else."""


def hush() -> None:
    """Give this process, and all that it starts, the silence. Before anything is imported that would talk."""
    deafen()
    os.environ.update({**SILENCE, **OFFLINE})


def deafen() -> None:
    """Have this process, and all that it starts, hear nothing of what the environment wants OpenTelemetry to do (R11).

    Names are not listed: each release of the SDK may read one more.
    """
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]


BOARD = "DOMICILE_BOARD"
"""Set by a replica for its own engine's processes, and by nobody else."""


def board(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file that an engine's scheduler tells its replica's pacer in; see :mod:`serving.batching.board`."""
    path = environment.get(BOARD)
    return Path(path) if path else None


@dataclass(frozen=True, slots=True)
class Settings:
    """Where state and tenant files live."""

    home: Path
    """``DOMICILE_HOME``: keys, stores, models and the running cluster's record."""

    countries: Path
    """``DOMICILE_COUNTRIES``: one folder a country, each with a ``tenant.yaml``."""

    private_host: str | None = None
    """``DOMICILE_PRIVATE_HOST``: where replicas listen for their gateways; their node's own address when unset."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        state = environment.get("XDG_STATE_HOME") or str(Path(environment.get("HOME", "/")) / ".local" / "state")
        home = Path(environment.get("DOMICILE_HOME") or Path(state) / "domicile")
        shipped = Path(tenants.__file__).parent / "countries"
        return cls(
            home=home.expanduser().absolute(),
            countries=Path(environment.get("DOMICILE_COUNTRIES") or shipped).expanduser().absolute(),
            private_host=environment.get("DOMICILE_PRIVATE_HOST") or None,
        )

    @property
    def models(self) -> Path:
        """Checkpoints made by ``domicile models prepare``."""
        return self.home / "models"

    @property
    def run(self) -> Path:
        """What ``up`` started: read by ``down``, also after a crash."""
        return self.home / "run"

    def country(self, code: str) -> Path:
        """The country's own ground: store, keys, pepper. Nothing of another country is ever written here."""
        return self.home / "countries" / code
