"""What is kept is what the definition says, on every input, whichever code finds it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels import nucleus
from kernels.nucleus import cpu, reference, rows
from tests.kernels.rows import KINDS, batch, full, problems, same

INF = math.inf
BOTH = pytest.mark.parametrize("apply", [nucleus.apply, reference.apply], ids=["compiled", "reference"])


def kept(logits: Tensor) -> list[list[int]]:
    return [torch.nonzero(row > -INF).flatten().tolist() for row in logits]


@given(problems())
def test_the_compiled_kernel_keeps_what_the_sort_keeps(problem: tuple[Tensor, dict[str, Any]]) -> None:
    logits, wanted = problem
    assert same(nucleus.apply(logits.clone(), **wanted), reference.apply(logits.clone(), **wanted))


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_so_on_a_vocabulary_too(kind: str) -> None:
    logits = batch(kind, 6, 49_153)
    wanted = {
        "top_k": torch.tensor([0, 50, 0, 1000, 40_000, 0]),
        "top_p": torch.tensor([0.9, 0.95, 1.0, 0.999, 0.5, 0.01]),
        "min_p": torch.tensor([0.0, 0.0, 0.05, 0.0, 1e-6, 0.2]),
    }
    assert same(nucleus.apply(logits.clone(), **wanted), reference.apply(logits.clone(), **wanted))


@pytest.mark.parametrize("kind", ["flat", "ties", "equal", "sparse"])
@pytest.mark.parametrize("scale", [1e-3, 0.3, 2.0])
@pytest.mark.parametrize("ahead", [-4.0, 4.0])
def test_a_sample_of_a_flat_row_that_misleads_costs_time_only(kind: str, scale: float, ahead: float) -> None:
    logits = batch(kind, 6, 50_000) * scale
    logits[3:, :: rows.SAMPLED] += ahead
    shares = torch.tensor([0.3, 0.9, 1 - 2**-20] * 2)
    for others in ({}, {"min_p": torch.full((6,), 1e-3)}, {"top_k": torch.full((6,), 20_000)}):
        found = nucleus.apply(logits.clone(), top_p=shares, **others)
        assert same(found, reference.apply(logits.clone(), top_p=shares, **others))


@pytest.mark.parametrize("below", [14.1, 16.0, 20.0])
def test_what_is_far_below_counts_where_it_decides(below: float) -> None:
    """One likely token, one that may go, and tens of thousands that are each next to nothing and together are not."""
    row = torch.full((40_000,), -below)
    row[7], row[30_000] = 0.0, -3.0
    near, all_of_it = (1 + math.exp(-3), 1 + math.exp(-3) + len(row) * math.exp(-below))
    # Between these shares the first token is enough of what is near, and not enough of everything.
    shares = torch.linspace(1 / all_of_it, 1 / near, 11)[1:-1]
    batch = row.repeat(len(shares), 1)
    found = nucleus.apply(batch.clone(), top_p=shares)
    assert same(found, reference.apply(batch.clone(), top_p=shares))
    assert kept(found) == [[7, 30_000]] * len(shares)


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=12), st.integers(0, 13), st.integers(0, 16))
def test_the_sort_keeps_what_exact_arithmetic_keeps(logits: list[int], top_k: int, sixteenths: int) -> None:
    """Of powers of two every sum is exact, in floats as well; drawn so that shares fall on the edge often."""
    row = torch.tensor([[one * math.log(2) for one in logits]])
    found = kept(reference.apply(row.clone(), **full(1, top_k=top_k, top_p=1 - sixteenths / 16)))[0]
    order = sorted(range(len(logits)), key=lambda place: (logits[place], place))
    if 0 < top_k < len(logits):
        order = [place for place in order if logits[place] >= sorted(logits)[-top_k]]
    masses = [2.0 ** (logits[place] - max(logits)) for place in order]
    edge = sixteenths / 16 * sum(masses)
    certain = [place for i, place in enumerate(order) if sum(masses[: i + 1]) > edge * (1 + 1e-6)]
    possible = [place for i, place in enumerate(order) if sum(masses[: i + 1]) > edge * (1 - 1e-6)] or order[-1:]
    assert set(certain) | {order[-1]} <= set(found) <= set(possible) | {order[-1]}


@BOTH
def test_among_equals_the_lower_index_goes_first(apply: Any) -> None:
    row = torch.zeros(1, 200)
    assert kept(apply(row.clone(), **full(1, top_p=0.5))) == [list(range(100, 200))]
    row[0, 150] = -0.0  # equal to zero, wherever it stands
    assert kept(apply(row, **full(1, top_p=0.5))) == [list(range(100, 200))]


@BOTH
def test_what_equals_the_last_of_top_k_stays(apply: Any) -> None:
    assert kept(apply(torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0]]), **full(1, top_k=2))) == [[1, 2, 3, 4]]


@BOTH
def test_the_share_of_top_p_is_of_what_the_others_left(apply: Any) -> None:
    row = torch.tensor([[0.5, 0.2, 0.2, 0.1]]).log()
    assert kept(apply(row.clone(), **full(1, top_p=0.75))) == [[0, 1, 2]]
    assert kept(apply(row.clone(), **full(1, top_k=2, top_p=0.75))) == [[0, 2]], "a fifth is now less than a quarter"
    assert kept(apply(row.clone(), **full(1, top_p=0.55))) == [[0, 2]]
    assert kept(apply(row.clone(), **full(1, min_p=0.3, top_p=0.55))) == [[0]]


@BOTH
def test_the_likeliest_always_stays(apply: Any) -> None:
    logits = batch("real", 3, 500)
    best = logits.argmax(dim=1).tolist()
    for limits in ({"top_k": 1}, {"top_p": 0.0}, {"top_p": 1e-9}, {"min_p": 1.0}, {"min_p": 7.0}):
        assert kept(apply(logits.clone(), **full(3, **limits))) == [[one] for one in best], limits


@BOTH
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"top_k": 0},
        {"top_k": -1},
        {"top_k": 300},
        {"top_p": 1.0},
        {"top_p": 1.5},
        {"top_p": math.nan},
        {"min_p": 0.0},
        {"min_p": math.nan},
    ],
    ids=str,
)
def test_what_is_off_drops_nothing(apply: Any, limits: dict[str, float]) -> None:
    logits = batch("ties", 2, 300)
    assert same(apply(logits.clone(), **full(2, **limits)), logits)


@BOTH
@pytest.mark.parametrize("fault", [math.nan, -math.nan, INF])
def test_a_row_with_a_fault_is_left_for_others_to_see(apply: Any, fault: float) -> None:
    logits = batch("real", 2, 300)
    logits[0, 123] = fault
    done = apply(logits.clone(), **full(2, top_k=20, top_p=0.9, min_p=0.1))
    assert same(done[0], logits[0])
    assert len(kept(done)[1]) < 20


@BOTH
def test_a_row_of_nothing_stays_one(apply: Any) -> None:
    nothing = torch.full((1, 300), -INF)
    assert same(apply(nothing.clone(), **full(1, top_k=5, top_p=0.5, min_p=0.5)), nothing)


@BOTH
@pytest.mark.parametrize("shape", [(0, 100), (3, 0), (1, 1), (2, 65)])
def test_any_shape_will_do(apply: Any, shape: tuple[int, int]) -> None:
    logits = torch.zeros(shape)
    done = apply(logits, **full(shape[0], top_k=1, top_p=0.001))
    assert done is logits
    assert kept(done) == [[shape[1] - 1]] * shape[0] if shape[1] else not done.numel()


@pytest.mark.parametrize("layout", ["rows apart", "columns apart", "columns first"])
def test_rows_need_not_be_next_to_each_other(layout: str) -> None:
    logits = batch("real", 5, 400)
    around = torch.full((5, 900), 7.0)
    laid = {"rows apart": around[:, 100:500], "columns apart": around[:, :800:2], "columns first": around.T[:400, :5].T}
    view = laid[layout].copy_(logits)
    untouched = around.clone()
    wanted = full(5, top_k=30, top_p=0.9)
    done = nucleus.apply(view, **wanted)
    assert done.data_ptr() == view.data_ptr()
    assert same(view.contiguous(), reference.apply(logits.clone(), **wanted))
    assert int((around != untouched).sum()) == int((view == -INF).sum()), "nothing beside the rows was written"


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    logits = torch.cat([batch(kind, 2, 3000) for kind in KINDS])
    rows = len(logits)
    wanted = {"top_k": torch.arange(rows) * 7 % 60, "top_p": torch.linspace(0.05, 1.0, rows)}
    whole = nucleus.apply(logits.clone(), **wanted)
    for row in range(rows):
        alone = {name: values[row : row + 1] for name, values in wanted.items()}
        assert same(nucleus.apply(logits[row : row + 1].clone(), **alone), whole[row : row + 1])


@given(problems(most=300), st.randoms(use_true_random=False))
def test_the_order_of_the_vocabulary_does_not_matter(problem: tuple[Tensor, dict[str, Any]], shuffle: Any) -> None:
    """But among equals: so the values that are kept are the same, and as many."""
    logits, wanted = problem
    order = list(range(logits.shape[1]))
    shuffle.shuffle(order)
    one = nucleus.apply(logits.clone(), **wanted)
    other = nucleus.apply(logits[:, order].contiguous(), **wanted)
    assert torch.equal(one.sort(dim=1).values, other.sort(dim=1).values)


def test_limits_that_were_read_once_stay_what_they_were() -> None:
    logits, top_p = batch(KINDS[0], 3, 500), torch.tensor([0.5, 1.0, 0.9])
    read = cpu.limits(logits, top_p=top_p)
    wanted = reference.apply(logits.clone(), top_p=top_p)
    top_p.fill_(1.0)
    assert all(same(cpu.apply_limits(logits.clone(), read), wanted) for _ in range(2))
    with pytest.raises(ValueError, match="limits of 3 rows for 2"):
        cpu.apply_limits(logits[:2], read)


def test_what_does_not_fit_is_said() -> None:
    logits = torch.zeros(2, 8)
    with pytest.raises(TypeError, match="bfloat16"):
        nucleus.apply(logits.bfloat16(), **full(2, top_k=1))
    with pytest.raises(ValueError, match=r"top_p has shape \(3,\) for 2 rows"):
        nucleus.apply(logits, **full(3, top_p=0.5))
    with pytest.raises(ValueError, match="exact sums hold 524287"):
        nucleus.apply(torch.zeros(1, 524_288), **full(1, top_p=0.5))
