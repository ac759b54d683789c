"""Whether an audit log is what was written: every line, every link, every signature, and the end.

It needs the country's public keys and no private one. What it cannot see by itself is a folder that was put back, head
and all, to an earlier state: give it what somebody holds outside, such as a receipt, as ``known``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.records.chain import Chain, Fault, Flaw, Place
from serving.records.encoding import json_object
from serving.records.errors import RecordsUnavailable, Rejected
from serving.records.folder import HEAD, LOCK, Folder
from serving.records.jwks import PublicKeys
from serving.records.statements import Checkpoint, Head

PROOF = "proof.json"
"""What an export has instead of a head: see :mod:`serving.records.export`."""
_TRIES = 3
_MANY = 100


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A log at one moment: its segments by first record and size, and what is signed beside them."""

    segments: tuple[tuple[int, int], ...]
    head: str | None
    checkpoints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found."""

    country: str
    first: int | None
    """The first record; ``None`` for a log without one."""
    last: int
    time: str | None
    """When the last record was written."""
    records: int
    segments: int
    checkpoints: tuple[str, ...]
    """The signed checkpoints, in order."""
    beyond: int
    """Records after the signed head: a writer died before it moved the head, and the next one takes them up."""
    faults: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        return not self.faults


def snapshot(directory: Path) -> Snapshot:
    """The log as it is between two batches, or an export. Raises :class:`RecordsUnavailable`."""
    folder = Folder(directory)
    if (directory / LOCK).exists():
        with folder.locked(shared=True):
            return Snapshot(_sizes(folder), folder.head())
    proof = directory / PROOF
    if not proof.exists():
        return Snapshot(_sizes(folder), folder.head())
    try:
        said = json_object(proof.read_bytes())
    except (OSError, ValueError) as error:
        raise RecordsUnavailable(f"cannot read {proof}: {error}") from error
    head, checkpoints = said.get("head"), said.get("checkpoints")
    listed = checkpoints if isinstance(checkpoints, list) else ()
    return Snapshot(_sizes(folder), head if isinstance(head, str) else None, tuple(map(str, listed)))


def verify(directory: Path, keys: PublicKeys, country: str, known: Mapping[int, str] | None = None) -> Verdict:
    """Look at every record of a log or an export. Writers go on meanwhile.

    Args:
        known: hashes by record, from receipts or an earlier verification.

    Raises:
        RecordsUnavailable: the folder cannot be read.
    """
    for attempt in range(_TRIES):
        try:
            return examine(directory, snapshot(directory), keys, country, known)
        except RecordsUnavailable:
            # A writer may have removed old segments since they were listed.
            if attempt == _TRIES - 1:
                raise
    raise AssertionError


def examine(
    directory: Path, taken: Snapshot, keys: PublicKeys, country: str, known: Mapping[int, str] | None = None
) -> Verdict:
    """:func:`verify` for a snapshot that was taken already."""
    head, faults = _head(taken, keys, country)
    anchors = dict(known or {})
    for token in taken.checkpoints:
        try:
            said = Checkpoint.open(token, keys, country)
        except Rejected as error:
            faults.append(Fault(Flaw.SIGNATURE, Place(PROOF, 0, None), f"checkpoints signed by the country; {error}"))
            break
        anchors[said.seq] = said.hash
    if head is not None and head.seq:
        anchors[head.seq] = head.hash
    chain = Chain(country, keys, anchors)
    for first, size in taken.segments:
        _read(directory, first, size, chain, head)
        if len(chain.faults) >= _MANY:
            break
    else:
        chain.finish()
    return Verdict(
        country=country,
        first=chain.first if chain.records else None,
        last=chain.last,
        time=chain.time,
        records=chain.records,
        segments=len(taken.segments),
        checkpoints=tuple(chain.checkpoints),
        beyond=0 if head is None else max(0, chain.last - head.seq),
        faults=(*faults, *chain.faults),
    )


def _head(taken: Snapshot, keys: PublicKeys, country: str) -> tuple[Head | None, list[Fault]]:
    place = Place(HEAD, 0, None)
    if taken.head is None:
        return None, [Fault(Flaw.HEAD, place, "a signed statement of where the log ends")]
    try:
        return Head.open(taken.head, keys, country), []
    except Rejected as error:
        return None, [Fault(Flaw.HEAD, place, f"a head signed by the country; {error}")]


def _read(directory: Path, first: int, size: int, chain: Chain, head: Head | None) -> None:
    """Follow a segment's first ``size`` bytes. Half a line after the signed end is what a dead writer left."""
    chain.enter(first)
    left = size
    try:
        with Folder(directory).path(first).open("rb") as file:
            for number, raw in enumerate(file, 1):
                whole = len(raw) <= left and raw.endswith(b"\n")
                if left <= 0 or (not whole and head is not None and chain.last >= head.seq):
                    return
                chain.follow(raw, number)
                left -= len(raw)
                if len(chain.faults) >= _MANY:
                    return
    except OSError as error:
        raise RecordsUnavailable(f"cannot read {directory}: {error.strerror}") from error


def _sizes(folder: Folder) -> tuple[tuple[int, int], ...]:
    return tuple((first, folder.size(first)) for first in folder.segments())
