"""Who gets which cores."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engine.cores import environment, label, parse, share

CORES = st.lists(st.integers(0, 255), min_size=1, max_size=64, unique=True)


@given(CORES)
def test_a_label_reads_as_it_was_written(cores: list[int]) -> None:
    assert parse(label(cores)) == tuple(sorted(cores))
    assert len(label([0, 1, 2, 9])) <= 63, "Ray's labels are no longer"


@given(CORES, st.integers(1, 16))
def test_every_core_is_used_and_none_by_two_while_they_last(cores: list[int], slots: int) -> None:
    shares = [share(cores, slot, slots) for slot in range(slots)]
    assert all(shares)
    if slots <= len(cores):
        assert sorted(core for one in shares for core in one) == sorted(cores)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    else:
        assert all(len(one) == 1 for one in shares)


def test_no_such_slot() -> None:
    for cores, slot, slots in (((), 0, 1), ((0,), 1, 1), ((0,), -1, 1), ((0,), 0, 0)):
        with pytest.raises(ValueError, match="no slot"):
            share(cores, slot, slots)


def test_an_engine_is_bound_to_its_cores() -> None:
    wanted = environment((2, 3, 8))
    assert wanted["VLLM_CPU_OMP_THREADS_BIND"] == "2-3,8"
    assert wanted["OMP_NUM_THREADS"] == wanted["NUMBA_NUM_THREADS"] == "3"
    assert wanted["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
