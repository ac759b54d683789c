"""R8: everything begins silent and offline. For the processes of a house that runs, see the journeys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.cli.cluster import LocalCluster
from serving.settings import ONLINE, Settings
from tests.residency.silence import SILENT, lacking

TALKERS = {"huggingface_hub", "transformers", "vllm", "ray", "torch"}

_MAIN = """
import json, os, sys
from serving import cli
before = sorted(name.partition(".")[0] for name in sys.modules)
cli.app = lambda: print(json.dumps([before, dict(os.environ)]))
cli.main()
"""
_HUB = "from huggingface_hub import constants; print(constants.HF_HUB_OFFLINE)"


def ran(code: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def bare() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in SILENT}


@pytest.mark.parametrize("asked", [{}, dict.fromkeys(SILENT, "0"), {"HF_HUB_OFFLINE": ""}])
def test_every_command_is_silent_before_anything_that_talks_is_imported(asked: dict[str, str]) -> None:
    """Also where the shell that it was called from says otherwise: that a country allows, its file says."""
    imported, environment = json.loads(ran(_MAIN, {**bare(), **asked}))
    assert lacking(environment) == {}
    assert not TALKERS & set(imported)


def test_no_command_nor_what_it_starts_hears_what_opentelemetry_is_told() -> None:
    """Whatever the variable is called: its SDK reads some forty, and each release may read more (R11)."""
    asked = {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://203.0.113.7", "OTEL_OF_TOMORROW": "1"}
    _, environment = json.loads(ran(_MAIN, {**bare(), **asked}))
    assert not [name for name in environment if name.startswith("OTEL_")]


def test_all_that_ray_starts_is_silent(tmp_path: Path) -> None:
    assert lacking(LocalCluster(Settings(home=tmp_path, countries=tmp_path)).environment()) == {}


def test_a_country_that_allows_hubs_is_online_again() -> None:
    """The switches that lift it are ones that the library takes for off."""
    assert ran(_HUB, {**bare(), **SILENT}).strip() == "True"
    assert ran(_HUB, {**bare(), **SILENT, **ONLINE}).strip() == "False"
