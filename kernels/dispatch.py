"""Which implementation of an operation runs on a device: compiled for CPUs, Triton on CUDA GPUs, else the reference.

Implementations are imported on first use: numba and Triton each take a second, and most processes need neither.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

_IMPLEMENTATIONS = {"cpu": "cpu", "cuda": "triton"}


@cache
def implementation(operation: str, device: str) -> ModuleType:
    """The module of ``kernels.<operation>`` for a device's type (``torch.device.type``).

    Raises ``ModuleNotFoundError`` for an operation that is not there.
    """
    return import_module(f"kernels.{operation}.{_IMPLEMENTATIONS.get(device, 'reference')}")
