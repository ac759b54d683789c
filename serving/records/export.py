"""A copy of the log for an auditor: the segments as they are, JSON Lines, and a file with what proves them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import orjson

from serving.records.audit_verify import PROOF, Snapshot, Verdict, examine, snapshot
from serving.records.errors import RecordsUnavailable
from serving.records.files import write_all
from serving.records.folder import Folder
from serving.records.jwks import PublicKeys


def export(directory: Path, target: Path, keys: PublicKeys, country: str) -> Verdict:
    """Copy a country's log, as it is at one moment, to a folder that does not exist yet, and verify the copy.

    ``proof.json`` holds the signed head, the signed checkpoints and the JWK set. The verifier takes the folder as it
    is, with keys that its reader has from elsewhere: a proof cannot vouch for the keys beside it.

    Raises:
        RecordsUnavailable: the log cannot be read, or the copy not be written.
    """
    taken = snapshot(directory)
    try:
        target.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise RecordsUnavailable(f"cannot export to {target}: {error.strerror}") from error
    try:
        return _filled(directory, target, taken, keys, country)
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, OSError):
            raise RecordsUnavailable(f"cannot export to {target}: {error.strerror}") from error
        raise


def _filled(directory: Path, target: Path, taken: Snapshot, keys: PublicKeys, country: str) -> Verdict:
    for first, size in taken.segments:
        _copy(Folder(directory).path(first), Folder(target).path(first), size)
    verdict = examine(target, taken, keys, country)
    proof = {"country": country, "head": taken.head, "checkpoints": verdict.checkpoints, "jwks": keys.document()}
    _write(target / PROOF, orjson.dumps(proof, option=orjson.OPT_INDENT_2) + b"\n")
    return verdict


def _copy(source: Path, target: Path, size: int) -> None:
    _write(target, b"")
    with source.open("rb") as file, target.open("r+b") as copy:
        shutil.copyfileobj(file, copy)
        # What was added since the snapshot is not in its head either.
        copy.truncate(size)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, content)
    finally:
        os.close(descriptor)
