"""The compiled kernel within a process: its threads, and its shape on CPUs with narrower vectors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llvmlite.binding
import numba
import pytest
import torch

from kernels.linear import Packed, cpu
from tests.kernels.processes import run
from tests.kernels.products import product
from tests.kernels.rows import same


def layer(rows: int = 50) -> tuple[torch.Tensor, Packed]:
    inputs, weight, _ = product((rows,), 60, 700)
    packed = cpu.pack(weight)
    assert packed is not None
    return inputs, packed


def test_two_threads_compute_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("numba has one thread here")
    inputs, packed = layer(2 * cpu.MANY + 1)
    for rows in (1, cpu.HEIGHT + 1, 50, cpu.MANY, 2 * cpu.MANY + 1):
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        two = cpu.apply(inputs[:rows], packed)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        with monkeypatch.context() as patched:
            patched.setattr(cpu, "_in_parallel", None)
            patched.setattr(cpu, "_in_pieces", None)
            assert same(cpu.apply(inputs[:rows], packed), two)


@pytest.mark.parametrize("shares", [1, 2, 3, 7, 83, 200])
def test_shares_of_the_work_leave_nothing_out_and_do_nothing_twice(shares: int) -> None:
    inputs, packed = layer()
    panels, blocks = packed.data.shape[0], -(-50 // cpu.HEIGHT)
    tiles = panels * blocks
    sums = torch.full((50, panels * cpu.WIDTH), torch.nan)
    places = inputs.data_ptr(), packed.data.data_ptr(), sums.data_ptr()
    for share in range(shares):
        before = sums.isnan().sum()
        first, last = tiles * share // shares, tiles * (share + 1) // shares
        cpu._part(*places, 50, packed.inputs, panels, first, last)
        written = before - sums.isnan().sum()
        heights = [50 * (tile % blocks + 1) // blocks - 50 * (tile % blocks) // blocks for tile in range(first, last)]
        assert written == sum(heights) * cpu.WIDTH
        assert max(heights, default=0) <= cpu.HEIGHT
    assert same(sums[:, : packed.outputs].contiguous(), cpu.apply(inputs, packed))


@pytest.mark.parametrize("rows", [1, cpu.HEIGHT + 1, 50, cpu.MANY])
def test_who_comes_alone_takes_every_piece_and_who_comes_late_takes_none(rows: int) -> None:
    """The other thread may have been taken its core away for all that long."""
    inputs, packed = layer(rows)
    panels = packed.data.shape[0]
    sums, late = torch.full((2, rows, panels * cpu.WIDTH), torch.nan)
    taken = torch.zeros(1, dtype=torch.int64)
    for outputs in (sums, late):
        places = inputs.data_ptr(), packed.data.data_ptr(), outputs.data_ptr()
        cpu._pieces(*places, rows, packed.inputs, panels, taken.data_ptr())
    assert same(sums[:, : packed.outputs].contiguous(), cpu.apply(inputs, packed))
    assert late.isnan().all()


def test_a_piece_that_another_took_is_left_to_it() -> None:
    inputs, packed = layer(cpu.MANY)
    panels = packed.data.shape[0]
    sums = torch.full((cpu.MANY, panels * cpu.WIDTH), torch.nan)
    first = panels * -(-cpu.MANY // cpu.HEIGHT) // cpu.SHARE
    places = inputs.data_ptr(), packed.data.data_ptr(), sums.data_ptr()
    taken = torch.ones(1, dtype=torch.int64)
    cpu._pieces(*places, cpu.MANY, packed.inputs, panels, taken.data_ptr())
    left = sums.isnan().sum()
    cpu._part(*places, cpu.MANY, packed.inputs, panels, 0, first)
    assert left
    assert not sums.isnan().any()


@pytest.mark.parametrize("rows", [50, cpu.MANY])
def test_threads_do_not_meet(rows: int) -> None:
    cpu.warm()
    inputs, packed = layer(rows)
    expected = cpu.apply(inputs, packed)
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: cpu.apply(inputs, packed), range(60)))
    assert all(same(one, expected) for one in done)


def narrower() -> str:
    """This CPU's features, as LLVM has them, without any of AVX-512."""
    features = llvmlite.binding.get_host_cpu_features()
    for name in features:
        if "avx512" in name or name.startswith("avx10"):
            features[name] = False
    return str(features.flatten())


@pytest.mark.timeout(300)
def test_eight_lanes_compute_what_sixteen_do(tmp_path: Path) -> None:
    """One cache for both, as a home has that two kinds of CPU share; its second use is from the cache."""
    if cpu.LANES != 16:
        pytest.skip("this CPU has the narrower vectors, so every test is of those")
    own = {"NUMBA_CACHE_DIR": str(tmp_path)}
    narrow = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": narrower(), **own}
    printed = [run("tests.kernels.digest", **environment).split() for environment in (own, narrow, own, narrow)]
    assert [lanes for lanes, _ in printed] == ["16", "8", "16", "8"]
    assert len({digest for _, digest in printed}) == 1
    assert len(list(tmp_path.rglob("cpu._part-*.nbc"))) == 2, "each was compiled once, and loaded after that"
