"""What a model is, to the letter: one digest of all its files, which receipts name.

It is the same as in the ``manifest.json`` of a prepared model, and anybody who has the files can make it again: SHA-256
over JSON with sorted keys that gives each file's size and SHA-256. Every byte is read, at about the speed of the disk,
once: while sizes, times and inodes stay as they were, the digest is remembered.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from serving.engine.models import MANIFEST, ModelError, combined, sha256_of, weights
from tenants.country import Source
from tenants.private import private_draft

MOST_FILES = 4096


def digest(source: Source, models: Path, remembered: Path) -> str:
    """``sha256:`` and hex. Minutes of reading for a large model that is new here, so not on an event loop.

    Args:
        remembered: a folder of the country's own.

    Raises:
        ModelError: the files cannot be read, or are no checkpoint.
    """
    found = weights(source, models)
    folder = _fetched(found) if source.hub is not None else Path(found)
    memory = remembered / f"{sha256(str(folder).encode()).hexdigest()[:16]}.json"
    try:
        seen = _seen(folder)
        return _recalled(memory, seen) or _made(folder, memory, seen)
    except OSError as error:
        raise ModelError(f"cannot read the model at {folder}: {error.strerror}") from error


def _seen(folder: Path) -> dict[str, list[int]]:
    """The files, and what would change with them. Hidden ones are not the model, nor is our own list of them."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if len(paths) > MOST_FILES:
        raise ModelError(f"{folder} holds more than {MOST_FILES} files: that is no checkpoint")
    stats = {path.name: path.stat() for path in paths if path.name != MANIFEST}
    return {name: [one.st_size, one.st_mtime_ns, one.st_ino] for name, one in stats.items()}


def _recalled(memory: Path, seen: dict[str, list[int]]) -> str | None:
    try:
        told = json.loads(memory.read_text())
    except (OSError, ValueError):
        return None
    return str(told["digest"]) if told.get("seen") == seen else None


def _made(folder: Path, memory: Path, seen: dict[str, list[int]]) -> str:
    files = {name: {"bytes": seen[name][0], "sha256": sha256_of(folder / name)} for name in seen}
    made = f"sha256:{combined(files)}"
    memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    memory.unlink(missing_ok=True)
    with private_draft(memory) as draft:
        draft.write_text(json.dumps({"digest": made, "seen": seen}))
    return made


def _fetched(name: str) -> Path:
    """Where a model that came from a hub lies now. Asks nobody."""
    # Imported here: only a country that allows hubs needs it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        raise ModelError(f"{name} is not on this node") from error
