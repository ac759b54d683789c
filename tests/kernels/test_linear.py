"""A packed layer computes what its definition says, on every shape, and packs nothing that bfloat16 cannot hold."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels import linear
from kernels.linear import Packed, amx, cpu, reference
from tests.kernels.products import LAYOUTS, Product, coarse, in_order, near, product, products
from tests.kernels.rows import same

TILES = pytest.param(amx, id="tiles", marks=pytest.mark.skipif(not amx.usable(), reason="this CPU has no AMX"))
COMPILED = pytest.mark.parametrize("layer", [pytest.param(cpu, id="vectors"), TILES])
ALL = pytest.mark.parametrize(
    "layer", [pytest.param(cpu, id="vectors"), TILES, pytest.param(reference, id="reference")]
)
BOTH = pytest.mark.parametrize("layer", [cpu, reference], ids=["vectors", "reference"])


@pytest.fixture(autouse=True, scope="module")
def poisoned() -> Iterator[None]:
    """New memory is full of NaN: none that is not written comes back unseen."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(9).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def packed(weight: Tensor, layer: ModuleType = cpu) -> Packed:
    found = layer.pack(weight)
    assert isinstance(found, Packed)
    return found


def compiled(problem: Product, layer: ModuleType = cpu) -> Tensor:
    done: Tensor = layer.apply(problem.inputs, packed(problem.weight, layer), problem.bias)
    return done


def defined(problem: Product) -> Tensor:
    return reference.apply(problem.inputs, packed(problem.weight, reference), problem.bias)


@COMPILED
@given(problem=products())
def test_a_compiled_kernel_computes_what_the_definition_says(layer: ModuleType, problem: Product) -> None:
    before = problem.inputs.clone()
    assert near(compiled(problem, layer), defined(problem), problem)
    assert torch.equal(problem.inputs, before)


@given(st.integers(1, 40), st.integers(1, 100), st.integers(1, 200), st.integers(0, 2**32))
def test_each_input_is_one_fused_product_and_sum_after_the_other(
    rows: int, inputs: int, outputs: int, seed: int
) -> None:
    problem = coarse(rows, inputs, outputs, seed)
    assert same(compiled(problem), in_order(problem.inputs, problem.weight))


@COMPILED
@given(rows=st.integers(1, 40), inputs=st.integers(1, 100), outputs=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_sums_that_float32_holds_are_exact(layer: ModuleType, rows: int, inputs: int, outputs: int, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    lines = torch.randint(-10_000, 10_000, (rows, inputs), generator=drawn).float()
    problem = Product(lines, torch.randint(-15, 15, (outputs, inputs), generator=drawn).float(), None)
    assert torch.equal(compiled(problem, layer), defined(problem))


@COMPILED
@pytest.mark.parametrize("inputs", [576, 1536])
def test_it_does_so_on_a_layer_of_a_model_too(layer: ModuleType, inputs: int) -> None:
    problem = product((230,), inputs, 960, bias=True)
    assert near(compiled(problem, layer), defined(problem), problem)


@COMPILED
@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_need_not_be_next_to_each_other(layer: ModuleType, layout: str) -> None:
    problem = product((3, 7), 33, 50, layout=layout, bias=True)
    dense = problem._replace(inputs=problem.inputs.clone(memory_format=torch.contiguous_format))
    assert same(compiled(problem, layer), compiled(dense, layer))


@ALL
@pytest.mark.parametrize("leading", [(0,), (), (1,), (2, 0, 3), (2, 1, 3)], ids=str)
def test_any_number_of_dimensions_will_do(layer: ModuleType, leading: tuple[int, ...]) -> None:
    inputs, weight, bias = product(leading, 5, 7, bias=True)
    done = layer.apply(inputs, packed(weight, layer), bias)
    assert done.shape == (*leading, 7)
    assert done.dtype == torch.float32
    assert done.is_contiguous()
    torch.testing.assert_close(done, torch.nn.functional.linear(inputs, weight, bias))


@COMPILED
@pytest.mark.parametrize("width", [0, 1, 3])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_row_is_the_same_bits_alone_and_in_any_batch(layer: ModuleType, width: int, beyond: int) -> None:
    rows = 49
    inputs, weight, bias = product((rows,), 77, max(1, width * layer.WIDTH + beyond), bias=True)
    held = packed(weight, layer)
    whole = layer.apply(inputs, held, bias)
    for row in range(rows):
        assert same(layer.apply(inputs[row], held, bias), whole[row])
    for size in range(1, rows):
        assert same(layer.apply(inputs[:size], held, bias), whole[:size])
        assert same(layer.apply(inputs[-size:].flip(0), held, bias).flip(0), whole[-size:])


SIGNALLING = torch.tensor(0x7F800001, dtype=torch.int32).view(torch.float32).item()
"""A NaN whose upper half is an infinity."""


@COMPILED
@pytest.mark.parametrize("fault", [torch.nan, -torch.nan, torch.inf, -torch.inf, SIGNALLING])
@pytest.mark.parametrize("rows", [1, cpu.HEIGHT, 3 * cpu.HEIGHT + 1])
def test_a_fault_stays_in_its_row(layer: ModuleType, rows: int, fault: float) -> None:
    problem = product((rows,), 40, 100, bias=True)
    calm = compiled(problem, layer)
    for row in (0, rows // 2, rows - 1):
        faulty = problem._replace(inputs=problem.inputs.clone())
        faulty.inputs[row, 17] = fault
        done = compiled(faulty, layer)
        assert not done[row].isfinite().any()
        torch.testing.assert_close(done[row], defined(faulty)[row], equal_nan=True)
        assert same(torch.cat([done[:row], done[row + 1 :]]), torch.cat([calm[:row], calm[row + 1 :]]))


@BOTH
def test_an_infinite_weight_stays_in_its_output(layer: ModuleType) -> None:
    inputs, weight, _ = product((3,), 4, cpu.WIDTH + 2)
    calm = layer.apply(inputs, packed(weight, layer))
    weight[cpu.WIDTH, 2] = -torch.inf
    inputs[:, 2] = torch.tensor([2.0, -2.0, 0.0])
    done = layer.apply(inputs, packed(weight, layer))
    assert done[:2, cpu.WIDTH].tolist() == [-torch.inf, torch.inf]
    assert done[2, cpu.WIDTH].isnan()
    assert done.isfinite().sum() == calm.isfinite().sum() - 3


SPECIAL = (0.0, -0.0, 1.0, 2.0**-126, 2.0**-127, -(2.0**-133), 1.9921875 * 2.0**127, torch.inf, -torch.inf)
"""Zeros, the least normal number, a subnormal one, the least of all, the largest, and what is beyond."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_bfloat16_holds_is_kept_bit_for_bit(dtype: torch.dtype) -> None:
    weight = torch.tensor(SPECIAL, dtype=dtype).unsqueeze(1)
    expected = torch.tensor(SPECIAL, dtype=torch.bfloat16).view(torch.int16)
    assert torch.equal(packed(weight, reference).data.flatten().view(torch.int16), expected)
    data = packed(weight).data.view(torch.int16)
    assert torch.equal(data[0, 0, : len(SPECIAL)], expected)
    assert not data[0, 0, len(SPECIAL) :].any()


@BOTH
def test_subnormal_numbers_are_computed_with(layer: ModuleType) -> None:
    weight = torch.tensor([[2.0**-133], [2.0**-127], [1.0]])
    inputs = torch.tensor([[2.0**120], [2.0**-10], [2.0**-149]])
    expected = [[2.0**-13, 2.0**-7, 2.0**120], [2.0**-143, 2.0**-137, 2.0**-10], [0.0, 0.0, 2.0**-149]]
    assert layer.apply(inputs, packed(weight, layer)).tolist() == expected


@ALL
@pytest.mark.parametrize(
    "number", [1 + 2.0**-8, 1 - 2.0**-9, 2.0**-134, torch.finfo(torch.float32).max, torch.nan, -torch.nan]
)
def test_one_number_that_bfloat16_does_not_hold_is_enough_to_pack_nothing(layer: ModuleType, number: float) -> None:
    weight = torch.ones(50, 30)
    weight[49, 29] = number
    assert layer.pack(weight) is None
    assert linear.pack(weight) is None


@ALL
def test_halves_with_more_digits_are_not_packed(layer: ModuleType) -> None:
    assert layer.pack(torch.full((3, 3), 1.5, dtype=torch.float16)) is not None
    assert layer.pack(torch.full((3, 3), 1 + 2.0**-10, dtype=torch.float16)) is None
    assert layer.pack(torch.full((3, 3), 1e300, dtype=torch.float64)) is None


@ALL
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (5,), (), (2, 3, 4)], ids=str)
def test_a_weight_has_outputs_and_inputs(layer: ModuleType, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"a weight is \[outputs, inputs\]"):
        layer.pack(torch.zeros(shape))


@ALL
def test_what_does_not_fit_is_said(layer: ModuleType) -> None:
    weight = packed(torch.ones(3, 8), layer)
    for dtype in (torch.bfloat16, torch.float64, torch.int32):
        with pytest.raises(TypeError, match=f"inputs are {dtype}, not float32"):
            layer.apply(torch.zeros(2, 8, dtype=dtype), weight)
    for shape in ((2, 7), (2, 9), (9,), (8, 1), (0, 3), ()):
        with pytest.raises(ValueError, match="do not fit a layer of 8 inputs"):
            layer.apply(torch.zeros(shape), weight)
    with pytest.raises(ValueError, match="inputs are on meta, the layer is on cpu"):
        layer.apply(torch.zeros(2, 8, device="meta"), weight)


@COMPILED
def test_the_weight_may_lie_anywhere(layer: ModuleType) -> None:
    inputs, weight, _ = product((2,), 33, 70)
    expected = layer.apply(inputs, packed(weight, layer))
    for other in (
        weight.T.contiguous().T,
        weight.repeat_interleave(2, dim=1)[:, ::2],
        weight.bfloat16(),
        weight.double(),
    ):
        assert same(layer.apply(inputs, packed(other, layer)), expected)


@COMPILED
def test_packing_keeps_neither_the_weight_nor_its_graph(layer: ModuleType) -> None:
    weight = torch.nn.Parameter(torch.ones(3, 4))
    held = packed(weight, layer)
    assert not held.data.requires_grad
    with torch.no_grad():
        weight.zero_()
    assert layer.apply(torch.ones(1, 4), held).tolist() == [[4.0] * 3]


@COMPILED
def test_what_torch_makes_by_default_does_not_matter(layer: ModuleType) -> None:
    """vLLM sets its model's type, and a device, around whatever is made while a model is loaded."""
    problem = product((3,), 10, 50)
    expected = compiled(problem, layer)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            assert same(compiled(problem, layer), expected)
            layer.warm()
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_is_packed_for_this_cpu_is_computed_on_it() -> None:
    problem = product((3,), 10, 50, bias=True)
    found = linear.pack(problem.weight)
    assert found is not None
    assert near(linear.apply(problem.inputs, found, problem.bias), defined(problem), problem)
    assert linear.kernel("cpu") is (amx if amx.usable() else cpu)
