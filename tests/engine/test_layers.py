"""The layers of a model on CPUs: faster ones are in place where they are as exact, and nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from serving.engine.models import prepare
from serving.settings import Settings

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
LAYERS = 30
"""Of the bundled model; each has four linear ones and two norms. One more norm, a head and an embedding are there."""


@pytest.fixture(scope="module")
def generated() -> dict[str, dict[str, Any]]:
    """What the real model answers with vLLM's layers and with ours."""
    folder = prepare("smollm2-135m-instruct", Settings.from_environment().models, lambda _doing, _done: None)
    return {linear: generate(str(folder), linear) for linear in ("vllm", "packed")}


def generate(folder: str, linear: str, dtype: str = "float32") -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.generate", folder, linear, dtype],
        cwd=ROOT,
        env={**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def test_every_layer_of_a_bfloat16_checkpoint_is_packed(generated: dict[str, dict[str, Any]]) -> None:
    ours, theirs = generated["packed"]["kinds"], generated["vllm"]["kinds"]
    assert (ours["PackedLinear"], ours["FusedNorm"], ours["PackedHead"]) == (4 * LAYERS, 2 * LAYERS + 1, 2)
    assert ours["Attention"] == LAYERS
    assert not {"PackedLinear", "PackedHead", "FusedNorm", "Attention"} & set(theirs)


def test_a_seed_draws_what_it_draws_with_vllm(generated: dict[str, dict[str, Any]]) -> None:
    """Temperature, nucleus and draw in one sweep, on the real model's logits, beside vLLM's sort and its own draw."""
    for made in generated.values():
        assert made["sampler"] == "NucleusSampler"
        assert made["drawn"] == made["drawn by vllm"]
        assert len({tuple(one) for one in made["drawn"]}) == len(made["drawn"])


def test_answers_are_the_same(generated: dict[str, dict[str, Any]]) -> None:
    """Sums are rounded in another order, which moves a log-probability by less than a thousandth."""
    ours, theirs = generated["packed"], generated["vllm"]
    assert ours["tokens"] == theirs["tokens"]
    for one, other in zip(ours["logprobs"], theirs["logprobs"], strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def layer_of(weight: torch.Tensor) -> nn.Module:
    layer = nn.Module()
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


@pytest.mark.parametrize("method", ["PackedLinear", "PackedHead"])
def test_a_weight_that_bfloat16_would_change_stays_as_it_is(method: str) -> None:
    from serving.engine import layers

    weight = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    inputs = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    bias = torch.ones(32)
    layer = layer_of(weight.clone())
    product = getattr(layers, method)()
    product.process_weights_after_loading(layer)
    torch.testing.assert_close(product.apply(layer, inputs, bias), inputs @ weight.T + bias)


@pytest.mark.parametrize("method", ["PackedLinear", "PackedHead"])
def test_a_packed_layer_computes_what_it_did(method: str) -> None:
    from serving.engine import layers

    weight = torch.randn(33, 16, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    inputs = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(1))
    layer = layer_of(weight.clone())
    product = getattr(layers, method)()
    product.process_weights_after_loading(layer)
    torch.testing.assert_close(product.apply(layer, inputs), inputs @ weight.T)
    if method == "PackedHead":  # tokens are looked up in it
        assert torch.equal(product.embedding(layer, torch.tensor([32, 0])), weight[[32, 0]])
    else:
        assert not layer.weight.numel()


def test_a_head_and_an_embedding_of_one_weight_are_packed_once() -> None:
    from serving.engine.layers import PackedHead

    embedding, head = layer_of(torch.ones(32, 16)), nn.Module()
    head.weight = embedding.weight
    PackedHead().process_weights_after_loading(embedding)
    packed = embedding.weight.packed
    PackedHead().process_weights_after_loading(head)
    assert head.weight.packed is packed


def test_a_layer_that_vllm_computes_plainly_is_left_alone() -> None:
    from serving.engine.layers import PackedLinear

    layer = layer_of(torch.zeros(8, 4))
    layer._cpu_skip_gemm_dispatch = True
    PackedLinear().process_weights_after_loading(layer)
    assert layer.cpu_linear is torch.nn.functional.linear


@pytest.mark.parametrize("rest", [False, True])
def test_norms_are_vllms(rest: bool) -> None:
    from vllm.config import VllmConfig, set_current_vllm_config

    from serving.engine.layers import FusedNorm

    drawn = torch.Generator().manual_seed(0)
    with set_current_vllm_config(VllmConfig()):
        norm = FusedNorm(48, eps=1e-5)
    norm.weight.data.copy_(torch.randn(48, generator=drawn))
    x, residual = torch.randn(5, 48, generator=drawn), torch.randn(5, 48, generator=drawn) if rest else None
    wanted = norm.forward_native(x.clone(), None if residual is None else residual.clone())
    torch.testing.assert_close(norm.forward_cpu(x.clone(), residual), wanted)
    apart = torch.randn(48, 5, generator=drawn).T
    torch.testing.assert_close(
        norm.forward_cpu(apart.clone(memory_format=torch.preserve_format)), norm.forward_native(apart)
    )


def test_another_type_and_another_choice_change_nothing() -> None:
    from types import SimpleNamespace

    from serving.engine.layers import PackedLayers, prepare_layers

    def prepared(linear: str, dtype: torch.dtype, quantised: object = None) -> object:
        model = SimpleNamespace(dtype=dtype)
        config = SimpleNamespace(
            additional_config={"domicile_linear": linear}, quant_config=quantised, model_config=model
        )
        prepare_layers(config)
        return config.quant_config

    assert isinstance(prepared("packed", torch.float32), PackedLayers)
    assert prepared("vllm", torch.float32) is None
    assert prepared("packed", torch.bfloat16) is None
    assert prepared("packed", torch.float32, "awq") == "awq"


def test_a_model_compiled_for_other_layers_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM looks compiled models up by all of ``additional_config``."""
    from types import SimpleNamespace

    from serving.engine import attention, layers

    def told(linear: str) -> object:
        model = SimpleNamespace(dtype=torch.float32)
        config = SimpleNamespace(additional_config={"domicile_linear": linear}, quant_config=None, model_config=model)
        layers.prepare_layers(config)
        return config.additional_config

    before = told("packed")
    assert told("packed") == before
    assert told("vllm") == {"domicile_linear": "vllm"}
    monkeypatch.setattr(attention, "__file__", __file__)
    assert told("packed") != before
