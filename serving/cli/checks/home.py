"""Is what lies on disk where it should be, readable by those who should, and right?"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import psutil

from serving.cli.checks import Finding, Patient, fail, lines, ok, warn
from serving.engine.arguments import ArgumentsRefused, check
from serving.engine.models import BUNDLED, ModelError, prepared, weights
from tenants.country import Country, Model
from tenants.errors import TenantError
from tenants.registry import Registry

REMOTE = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "gcsfuse", "gluster", "glusterfs", "lustre"),
        *("nfs", "nfs4", "rclone", "s3fs", "smb3", "smbfs", "sshfs", "virtiofs"),
    }
)
"""Filesystems on which SQLite's locks and shared memory (WAL) cannot be trusted: https://sqlite.org/wal.html"""


def home(patient: Patient) -> Finding:
    folder = patient.settings.home
    there = _nearest(folder)
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
        return fail(f"{folder} cannot be written", "name another folder with DOMICILE_HOME")
    if there != folder:
        return ok(f"{folder}, made when it is first needed")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o022:
        return fail(f"others may write to {folder} (mode {mode:o})", f"chmod 700 {folder}")
    if mode & 0o077:
        return warn(f"others may read {folder} (mode {mode:o})", f"chmod 700 {folder}")
    return ok(str(folder))


def filesystem(patient: Patient) -> Finding:
    there = _nearest(patient.settings.home).resolve()
    kind = _filesystem(there)
    if kind.removeprefix("fuse.") in REMOTE:
        return fail(f"{there} is on {kind}, where SQLite's locks do not hold", "name a local disk with DOMICILE_HOME")
    return ok(f"{there} is on {kind}")


def secrets(patient: Patient) -> Finding:
    """Peppers, cell keys, the demonstration keys and Ray's token open doors: only their owner may read them."""
    settings = patient.settings
    wanted = [path for name in ("pepper", "*.key", "*.sqlite") for path in settings.home.glob(f"countries/*/{name}")]
    loose = [path for path in (*wanted, token(patient)) if path.exists() and path.stat().st_mode & 0o077]
    if loose:
        return fail(lines(f"others may use {path}" for path in loose), f"chmod 600 {' '.join(map(str, loose))}")
    if patient.alive and not token(patient).exists():
        return fail("the token of the running cluster is gone", "domicile down, then domicile up")
    return ok(f"{len(wanted)} files of countries, and Ray's token, are their owner's alone")


def tenants(patient: Patient) -> Finding:
    remedy = f"mend the files below {patient.settings.countries}"
    try:
        registry = Registry.load(patient.settings.countries)
    except TenantError as error:
        return fail(str(error), remedy)
    problems = [problem for one in registry for model in one.models for problem in _arguments(one, model)]
    return (
        fail(lines(problems), remedy)
        if problems
        else ok(f"{len(registry)} countries: {', '.join(map(_code, registry))}")
    )


def models(patient: Patient) -> Finding:
    """By the sizes of their files; ``domicile models prepare --verify`` looks at every byte."""
    served = [(one, model) for one in patient.countries for model in one.models if model.replicas]
    missing = [problem for one, model in served if (problem := lacking(one, model, patient.settings.models))]
    if missing:
        return fail(lines(missing), "put the checkpoints where tenant.yaml says")
    bundled = sorted({model.source.bundled for _, model in served if model.source.bundled})
    if waiting := [name for name in bundled if not prepared(name, patient.settings.models)]:
        return warn(
            f"not prepared: {', '.join(waiting)}; up does it first, in about a minute", "domicile models prepare"
        )
    return ok(", ".join(sorted({model.id for _, model in served})))


def token(patient: Patient) -> Path:
    """Where Ray's token is."""
    return Path(patient.cluster.environment()["RAY_AUTH_TOKEN_PATH"])


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def _filesystem(folder: Path) -> str:
    mounts = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    return next((mounts[each] for each in (folder, *folder.parents) if each in mounts), "an unknown filesystem")


def _arguments(country: Country, model: Model) -> list[str]:
    try:
        check(model.engine.arguments)
    except ArgumentsRefused as error:
        return [f"{country.code}: {model.id}: {problem}" for problem in str(error).splitlines()]
    return []


def lacking(country: Country, model: Model, folder: Path) -> str | None:
    """What is wrong with where a model's weights should be."""
    if model.source.bundled is not None:
        known = model.source.bundled in BUNDLED
        return None if known else f"{country.code}: {model.id}: no package brings '{model.source.bundled}'"
    try:
        weights(model.source, folder)
    except ModelError as error:
        return f"{country.code}: {model.id}: {error}"
    return None


def _code(country: Country) -> str:
    return country.code
