"""Is the machine large enough, and set up as Ray and vLLM want it?"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from pathlib import Path

import psutil

from serving.cli.checks import Finding, Patient, fail, ok, warn
from serving.cli.inventory import memory as taken_by
from serving.engine.arguments import device

GIB = 1024**3
COUNTRY_BYTES = int(3.5 * GIB)
"""One bundled model on the CPU with 1 GiB of KV cache, its gateway and its raylet (PSS, measured)."""
HEAD_BYTES = GIB
SHM_BYTES = 2 * GIB
OPEN_FILES = 8192
"""A streaming caller takes two: one towards the caller, one towards the replica."""
SHM = Path("/dev/shm")  # noqa: S108 (its size is looked at, nothing is written)
CGROUP = Path("/sys/fs/cgroup")
SOCKET_PATH = 107
_LONGEST_BELOW_TEMP = len("/domicile-00000000/head/session_2000-01-01_00-00-00_000000_0000000/sockets/plasma_store")


def cores(patient: Patient) -> Finding:
    have, want = len(os.sched_getaffinity(0)), len(_on_cpu(patient))
    if have >= want:
        return ok(f"{have} for {want} countries on the CPU")
    return warn(f"{have} for {want} countries: some share a core", "fewer countries: domicile up --country CC")


def memory(patient: Patient) -> Finding:
    want = len(_on_cpu(patient)) * COUNTRY_BYTES + HEAD_BYTES
    total, available = _memory()
    usable = available + taken_by(patient.processes)
    said = f"{_gib(usable)} free or ours of {_gib(total)}; {len(patient.countries)} countries take {_gib(want)}"
    remedy = "fewer countries: domicile up --country CC; or less engine.kv_cache_gib in their tenant.yaml"
    if total < want:
        return fail(said, remedy)
    return ok(said) if usable >= want else warn(said, f"end other programs, or {remedy}")


def shared_memory(_: Patient) -> Finding:
    if not SHM.is_dir():
        return warn(f"{SHM} is missing: Ray's object stores go to disk", "mount a tmpfs there")
    size = shutil.disk_usage(SHM).total
    if size >= SHM_BYTES:
        return ok(f"{SHM} has {_gib(size)}")
    return warn(f"{SHM} has {_gib(size)}: Ray's object stores go to disk", "in a container: --shm-size=2g")


def open_files(_: Patient) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= OPEN_FILES:
        return ok(f"{soft} at most")
    # The limit is inherited: the shell that calls `up` decides.
    how = (
        "ulimit -n 65536" if hard == resource.RLIM_INFINITY or hard >= OPEN_FILES else "raise the hard limit of nofile"
    )
    return warn(f"{soft} at most, so a gateway takes about {soft // 2} callers at once", f"before domicile up: {how}")


def temporary(_: Patient) -> Finding:
    """The paths of Unix sockets have few bytes, and Ray puts its own deep below the temporary folder."""
    folder = tempfile.gettempdir()
    longest = len(os.fsencode(folder)) + _LONGEST_BELOW_TEMP
    if longest > SOCKET_PATH:
        return fail(f"sockets below {folder} would have paths of {longest} bytes, not {SOCKET_PATH}", "TMPDIR=/tmp")
    if not os.access(folder, os.W_OK | os.X_OK):
        return fail(f"{folder} cannot be written", "name another with TMPDIR")
    return ok(folder)


def _on_cpu(patient: Patient) -> list[str]:
    return [one.code for one in patient.countries if any(device(model.engine) == "cpu" for model in one.models)]


def _memory() -> tuple[int, int]:
    """Bytes in all and bytes free, of the machine or of the container where that has less."""
    machine = psutil.virtual_memory()
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        # No container, or one without a limit, which reads "max".
        return machine.total, machine.available
    return min(machine.total, limit), min(machine.available, limit - used)


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
