"""Each device gets its implementation, and only that one is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kernels.dispatch import implementation

OPERATIONS = pytest.mark.parametrize("operation", ["linear", "nucleus"])


@OPERATIONS
def test_a_device_without_a_kernel_gets_the_reference(operation: str) -> None:
    assert implementation(operation, "cpu").__name__ == f"kernels.{operation}.cpu"
    assert implementation(operation, "mps").__name__ == f"kernels.{operation}.reference"


@OPERATIONS
def test_a_gpu_gets_triton(operation: str) -> None:
    pytest.importorskip("triton")
    assert implementation(operation, "cuda").__name__ == f"kernels.{operation}.triton"


def test_an_operation_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="nonesuch"):
        implementation("nonesuch", "cpu")


@OPERATIONS
def test_importing_the_operation_loads_no_compiler(operation: str) -> None:
    compilers = "any(name in sys.modules for name in ('numba', 'triton.language'))"
    program = f"import sys, kernels.{operation}; sys.exit({compilers})"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
