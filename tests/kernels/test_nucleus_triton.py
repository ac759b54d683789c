"""The GPU kernel, without a GPU: interpreted, it keeps what the reference keeps; compiled, it rounds as it must.

In processes of their own, since Triton decides at import whether it interprets.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels.processes import run

pytest.importorskip("triton")


@pytest.mark.timeout(600)
def test_interpreted_it_keeps_what_the_reference_keeps() -> None:
    run("tests.kernels.interpreted", TRITON_INTERPRET="1")


@pytest.mark.parametrize("chip", ["80", "90"])
def test_compiled_no_product_is_contracted_with_a_sum(chip: str, tmp_path: Path) -> None:
    """One rounding where the reference has two would be another weight, and now and then another kept set."""
    ptx = run("tests.kernels.lowered", chip, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert "mul.rn.f32" in ptx or "mul.f32" in ptx
    assert "fma." not in ptx
