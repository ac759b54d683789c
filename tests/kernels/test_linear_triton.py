"""The GPU kernel, without a GPU: interpreted, it computes what the reference does; compiled, in float32 throughout.

In processes of their own, since Triton decides at import whether it interprets.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels.processes import run

pytest.importorskip("triton")


@pytest.mark.timeout(600)
def test_interpreted_it_computes_what_the_reference_does() -> None:
    run("tests.kernels.interpreted_linear", TRITON_INTERPRET="1")


@pytest.mark.parametrize("chip", ["80", "90"])
def test_compiled_no_number_loses_digits(chip: str, tmp_path: Path) -> None:
    """Tensor cores would take float32 as tf32, with 11 bits of its 24; and subnormal numbers are no zeros."""
    ptx = run("tests.kernels.lowered_linear", chip, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert "fma.rn.f32" in ptx
    assert not [word for word in ("tf32", "mma", ".ftz", ".approx") if word in ptx]
