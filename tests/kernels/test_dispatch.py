"""Each device gets its implementation, and only that one is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kernels.dispatch import implementation


def test_a_device_without_a_kernel_gets_the_reference() -> None:
    assert implementation("nucleus", "cpu").__name__ == "kernels.nucleus.cpu"
    assert implementation("nucleus", "mps").__name__ == "kernels.nucleus.reference"


def test_an_operation_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="nonesuch"):
        implementation("nonesuch", "cpu")


def test_importing_the_operation_loads_no_compiler() -> None:
    program = "import sys, kernels.nucleus; sys.exit(any(name in sys.modules for name in ('numba', 'triton.language')))"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
