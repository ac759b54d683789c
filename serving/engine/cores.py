"""Which CPU cores an engine's threads run on, and the environment that makes vLLM keep to them.

vLLM's default binding leaves cores idle on small machines and lets two engines fight over the same core; the
binding and the OpenMP library below more than double throughput (docs/decisions/0005). Pure but for looking
for the library.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from pathlib import Path


def share(cores: Sequence[int], slot: int, slots: int) -> tuple[int, ...]:
    """The cores of one of ``slots`` engines on a node: a contiguous run, so that neighbours share caches.

    With fewer cores than engines, each engine gets one core and some share it.
    """
    if slots < 1 or not 0 <= slot < slots or not cores:
        raise ValueError(f"no slot {slot} of {slots} on {len(cores)} cores")
    ordered = sorted(cores)
    if len(ordered) < slots:
        return (ordered[slot % len(ordered)],)
    start = slot * len(ordered) // slots
    end = (slot + 1) * len(ordered) // slots
    return tuple(ordered[start:end])


def parse(text: str) -> tuple[int, ...]:
    """Read ``0-3_8`` as cores 0, 1, 2, 3 and 8. A Ray label's value holds no comma, hence the underscore."""
    cores: list[int] = []
    for part in text.split("_"):
        first, _, last = part.partition("-")
        cores.extend(range(int(first), int(last or first) + 1))
    return tuple(cores)


def label(cores: Sequence[int]) -> str:
    """The opposite of :func:`parse`."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return "_".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def openmp_library() -> Path | None:
    """The environment's own ``libiomp5.so`` (from the package intel-openmp), where there is one."""
    library = Path(sysconfig.get_paths()["data"]) / "lib" / "libiomp5.so"
    return library if library.is_file() else None


def environment(cores: Sequence[int]) -> dict[str, str]:
    """What the engine's processes need in their environment to run on ``cores`` and no others."""
    wanted = {
        "VLLM_CPU_OMP_THREADS_BIND": label(cores).replace("_", ","),
        "OMP_NUM_THREADS": str(len(cores)),
        # OpenMP has pinned the main thread to one core by the time numba counts them.
        "NUMBA_NUM_THREADS": str(len(cores)),
        # Weights and the KV cache on huge pages, where the kernel gives them to those who ask (its usual setting): a
        # step reads every weight once, and what it reads from is otherwise looked up every 4 KiB.
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }
    if library := openmp_library():
        wanted["LD_PRELOAD"] = str(library)
    return wanted
