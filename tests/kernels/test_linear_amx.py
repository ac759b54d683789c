"""The kernel on AMX's tiles: what it cuts inputs into, what its threads leave out, and whom it must not disturb."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import llvmlite.binding
import numba
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.linear import Packed, amx, cpu, tiles
from tests.kernels.processes import run
from tests.kernels.products import product
from tests.kernels.rows import same

pytestmark = pytest.mark.skipif(not amx.usable(), reason="this CPU has no AMX")

LEAST = 2.0**-126
"""The least number that tiles do not take for 0."""


def layer(rows: int, inputs: int = 60) -> tuple[torch.Tensor, Packed]:
    lines, weight, _ = product((rows,), inputs, 700)
    packed = amx.pack(weight)
    assert packed is not None
    return lines, packed


def cut(lines: torch.Tensor) -> torch.Tensor:
    """[steps, thirds, rows, inputs] in float32."""
    rows, columns = lines.shape
    steps = -(-columns // tiles.INPUTS)
    room = amx._aligned(2 * 3 * steps * rows * tiles.INPUTS)
    place = amx._start(room)
    amx._thirds(lines.data_ptr(), place, rows, columns, 0, steps)
    offset = place - room.data_ptr()
    taken = room[offset : offset + 2 * 3 * steps * rows * tiles.INPUTS]
    return taken.view(torch.bfloat16).view(steps, 3, rows, tiles.INPUTS).float()


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False).filter(lambda x: not x or abs(x) >= LEAST * 2**16)
"""Those whose last third is a normal number too."""


@given(st.lists(FLOATS, min_size=1, max_size=70))
def test_three_thirds_are_the_number_and_each_is_shorter_than_the_one_before(numbers: list[float]) -> None:
    lines = torch.tensor([numbers, numbers[::-1]])
    thirds = cut(lines)
    whole = thirds.permute(1, 2, 0, 3).reshape(3, 2, -1)
    assert torch.equal(whole.double().sum(0)[:, : len(numbers)], lines.double())
    assert not whole[:, :, len(numbers) :].any()
    assert (whole[1].abs() <= whole[0].abs() / 128).all()
    assert (whole[2].abs() <= whole[1].abs() / 128).all()


def test_numbers_below_the_normal_ones_count_as_none() -> None:
    """Tiles have no others. The third that a small number loses so is less than 2^-126 too."""
    weight = torch.tensor([[2.0**-133], [LEAST], [1.0]])
    inputs = torch.tensor([[1.0], [2.0**-127], [LEAST], [LEAST * (1 + 2.0**-20)]])
    packed = amx.pack(weight)
    assert packed is not None
    expected = [[0.0, LEAST, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, LEAST], [0.0, 0.0, LEAST]]
    assert amx.apply(inputs, packed).tolist() == expected


@pytest.mark.parametrize("number", [torch.inf, -torch.inf])
def test_a_weight_with_an_infinity_is_left_to_others(number: float) -> None:
    weight = torch.ones(70, 40)
    weight[69, 39] = number
    assert amx.pack(weight) is None


def test_two_threads_compute_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("numba has one thread here")
    inputs, packed = layer(amx.MOST + 40)
    for rows in (1, 16, 17, 50, cpu.MANY, amx.MOST, amx.MOST + 1, amx.MOST + 40):
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        two = amx.apply(inputs[:rows], packed)
        with monkeypatch.context() as patched:
            patched.setattr(amx, "TOGETHER", 1)
            patched.setattr(amx, "_own", None)
            assert same(amx.apply(inputs[:rows], packed), two), "cut by all"
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        with monkeypatch.context() as patched:
            for parallel in ("_own", "_cut_by_all", "_multiplied_by_all"):
                patched.setattr(amx, parallel, None)
            assert same(amx.apply(inputs[:rows], packed), two), "alone"


@pytest.mark.parametrize("rows", [1, 16, 17, 50])
@pytest.mark.parametrize("shares", [1, 2, 3, 7, 83, 200])
def test_shares_of_the_work_leave_nothing_out_and_do_nothing_twice(rows: int, shares: int) -> None:
    inputs, packed = layer(rows)
    panels, steps = packed.data.shape[:2]
    sums = torch.full((rows, panels * tiles.WIDTH), torch.nan)
    room = amx._aligned(64 + 6 * steps * rows * tiles.INPUTS)
    start = amx._start(room)
    amx._thirds(inputs.data_ptr(), start + 64, rows, packed.inputs, 0, steps)
    units, blocks = amx._units(rows, panels), -(-rows // tiles.ROWS)
    for share in range(shares):
        before = sums.isnan().sum()
        places = start + 64, packed.data.data_ptr(), sums.data_ptr()
        amx._multiply(*places, rows, steps, panels, amx._SHAPES, 0, start, share, shares)
        mine = range(units * share // shares, units * (share + 1) // shares)
        heights = [rows * (unit % blocks + 1) // blocks - rows * (unit % blocks) // blocks for unit in mine]
        assert before - sums.isnan().sum() == sum(heights) * (tiles.WIDTH // 2 if blocks == 1 else tiles.WIDTH)
    assert same(sums[:, : packed.outputs].contiguous(), amx.apply(inputs, packed))


def test_who_comes_alone_takes_every_piece_and_who_comes_late_takes_none() -> None:
    """The other thread may have been taken its core away for all that long."""
    rows = cpu.MANY
    inputs, packed = layer(rows)
    panels, steps = packed.data.shape[:2]
    sums, late = torch.full((2, rows, panels * tiles.WIDTH), torch.nan)
    room = amx._aligned(64 + 6 * steps * rows * tiles.INPUTS)
    start = amx._start(room)
    amx._thirds(inputs.data_ptr(), start + 64, rows, packed.inputs, 0, steps)
    taken = torch.zeros(1, dtype=torch.int64)
    for share, outputs in enumerate((sums, late)):
        places = start + 64, packed.data.data_ptr(), outputs.data_ptr()
        amx._multiply(*places, rows, steps, panels, amx._SHAPES, taken.data_ptr(), start, share, 2)
    assert same(sums[:, : packed.outputs].contiguous(), amx.apply(inputs, packed))
    assert late.isnan().all()


@pytest.mark.parametrize("rows", [1, 50, cpu.MANY])
def test_threads_do_not_meet(rows: int) -> None:
    amx.warm()
    inputs, packed = layer(rows)
    expected = amx.apply(inputs, packed)
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: amx.apply(inputs, packed), range(60)))
    assert all(same(one, expected) for one in done)


def test_a_larger_product_after_a_smaller_one_has_room() -> None:
    for rows, inputs in ((1, 10), (amx.MOST, 10), (3, 5000), (amx.MOST, 5000), (2, 10)):
        lines, weight, _ = product((rows,), inputs, 70)
        packed = amx.pack(weight)
        assert packed is not None
        expected = lines.double() @ weight.double().T
        torch.testing.assert_close(amx.apply(lines, packed).double(), expected, rtol=1e-4, atol=1e-3)


def test_whose_tiles_they_were_finds_them_as_they_were_left() -> None:
    """oneDNN remembers what it told a core, and does not tell it again."""
    inputs, packed = layer(20)
    panels, steps = packed.data.shape[:2]
    sums = torch.empty(20, panels * tiles.WIDTH)
    room, found = amx._aligned(64 + 6 * steps * 20 * tiles.INPUTS), np.zeros(64, np.uint8)
    start, told = amx._start(room), amx._SHAPES + 64 * 5
    amx._thirds(inputs.data_ptr(), start + 64, 20, packed.inputs, 0, steps)
    places = start + 64, packed.data.data_ptr(), sums.data_ptr()
    _between(told, found.ctypes.data, *places, 20, steps, panels, amx._SHAPES, start)
    assert same(sums[:, : packed.outputs].contiguous(), amx.apply(inputs, packed))
    assert (found == amx._shapes[5]).all()


@numba.njit  # type: ignore[untyped-decorator] # numba has no types
def _between(
    told: int,
    found: int,
    thirds: int,
    weight: int,
    outputs: int,
    rows: int,
    steps: int,
    panels: int,
    shapes: int,
    before: int,
) -> None:
    tiles.configure(told)
    amx._multiply(thirds, weight, outputs, rows, steps, panels, shapes, 0, before, 0, 1)
    tiles.configured(found)


def test_products_of_bfloat16_beside_ours_are_what_they_were() -> None:
    inputs, packed = layer(33)
    narrow = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected, ours = narrow @ narrow, amx.apply(inputs, packed)
    for _ in range(20):
        assert same(amx.apply(inputs, packed), ours)
        assert torch.equal(narrow @ narrow, expected)


def test_a_process_may_be_told_to_do_without() -> None:
    """As where a country's CPUs are of two kinds and its answers shall be the same, digit for digit."""
    features = llvmlite.binding.get_host_cpu_features()
    for name in features:
        if name.startswith("amx"):
            features[name] = False
    without = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": str(features.flatten())}
    assert run("tests.kernels.chosen", **without).split() == ["kernels.linear.cpu"]
    assert run("tests.kernels.chosen").split() == ["kernels.linear.amx"]
