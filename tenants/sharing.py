"""What two countries may not share on disk: folders, stores, keys, and model folders that both could write.

Everything is looked at and nothing is made. Secrets are compared by their hashes, which are kept no longer than that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import combinations
from pathlib import Path

from tenants.country import Country
from tenants.errors import Problem
from tenants.private import NotPrivate, read_private


@dataclass(frozen=True, slots=True)
class Kind:
    """Something of which each country has its own."""

    name: str
    rule: str
    reason: str
    remedy: str


FOLDER = Kind("folder", "R6", "what one writes the other can read", "give each a folder of its own below DOMICILE_HOME")
STORE = Kind("store", "R6", "the organisations and keys of one are the other's too", "restore each country's own file")
CELL_KEY = Kind(
    "cell key", "R4", "a claim of one is taken by the other's replicas", "take the later one down, remove its cell.key"
)
PEPPER = Kind("pepper", "R1", "a key's digest in one store is valid in the other", "make the later country's keys anew")
SIGNING_KEY = Kind("signing key", "R10", "nobody can tell whose a receipt is", "rotate the later country's signing key")
TLS_KEY = Kind("TLS key", "R1", "one can pass itself off as the other", "give each its own certificate and key")
MODEL_FOLDER = Kind(
    "model folder",
    "R6",
    "both could write to it, and so reach the other's engine",
    "give each its own copy, or let nobody write there (chmod -R a-w)",
)

_SECRETS = (("cell.key", CELL_KEY), ("pepper", PEPPER), ("signing/current.pem", SIGNING_KEY))


@dataclass(frozen=True, slots=True)
class Belonging:
    """Something that a country has. Equal kind and identity are one and the same thing."""

    kind: Kind
    identity: str = field(repr=False)
    place: str
    """Where the tenant's file or its folder says it, for people."""


def belongings(country: Country, ground: Path) -> tuple[Belonging, ...]:
    """What a country has on disk now. ``ground`` is its folder, which need not be there."""
    return tuple(_belongings(country, ground))


def shared(owned: Mapping[str, Iterable[Belonging]]) -> Iterator[Problem]:
    """What belongs to two countries, of country code to belongings. A location begins with the later one's code."""
    for (one, theirs), (other, ours) in combinations(sorted(owned.items()), 2):
        known = {(each.kind, each.identity) for each in theirs}
        for each in ours:
            if (each.kind, each.identity) in known:
                message = f"is the same {each.kind.name} as {one}'s: {each.kind.reason}"
                yield Problem(f"{other}.{each.place}", message, each.kind.rule, each.kind.remedy)


def _belongings(country: Country, ground: Path) -> Iterator[Belonging]:
    yield from _inode(FOLDER, ground, "folder")
    yield from _inode(STORE, ground / "tenants.sqlite", "tenants.sqlite")
    yield from _inode(STORE, ground / "records" / "receipts.sqlite", "records/receipts.sqlite")
    yield from _inode(FOLDER, ground / "records", "records")
    for name, kind in _SECRETS:
        yield from _content(kind, ground / name, name)
    if country.gateway.tls is not None:
        yield from _content(TLS_KEY, country.gateway.tls.key, "gateway.tls.key")
    for number, model in enumerate(country.models):
        if model.source.path is not None and _writable(model.source.path):
            yield from _inode(MODEL_FOLDER, model.source.path, f"models[{number}].source.path")


def _inode(kind: Kind, path: Path, place: str) -> Iterator[Belonging]:
    """By what the path leads to: links of either sort are seen through."""
    try:
        status = path.stat()
    except OSError:
        return
    yield Belonging(kind, f"{status.st_dev}:{status.st_ino}", place)


def _content(kind: Kind, path: Path, place: str) -> Iterator[Belonging]:
    try:
        content = read_private(path)
    except (OSError, NotPrivate):
        # Which is what doctor, and whoever opens it, complain about. The same file is still found.
        yield from _inode(kind, path, place)
    else:
        yield Belonging(kind, sha256(content).hexdigest(), place)


def _writable(folder: Path) -> bool:
    """Whether an engine that this user runs could write there. Root may do so whatever the mode says."""
    try:
        mode = folder.stat().st_mode
        read_only = bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False
    return bool(mode & 0o222) and os.access(folder, os.W_OK) and not read_only
