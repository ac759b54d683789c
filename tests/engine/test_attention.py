"""Attention in one call: what vLLM's two calls do, bit for bit, and vLLM's own way for whatever else there is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytestmark = pytest.mark.engine

HEADS, KV_HEADS, SIZE, BLOCK = 4, 2, 64, 32
LENGTHS = (7, 1, 40)
"""Tokens of each request: two prompts, the second of them behind what is in the cache, and one that decodes."""
COMPUTED = (0, 33, 5)
LAYER = SimpleNamespace(isa="vec", _k_scale_float=1.0, _v_scale_float=1.0)


def made(kind: type[Any], **options: Any) -> Any:
    from vllm.config import DeviceConfig, VllmConfig, set_current_vllm_config

    config = VllmConfig(device_config=DeviceConfig("cpu"))
    config.model_config = SimpleNamespace(dtype=torch.float32)
    with set_current_vllm_config(config):
        slopes, window = options.pop("alibi_slopes", None), options.pop("window", None)
        return kind(HEADS, SIZE, SIZE**-0.5, KV_HEADS, slopes, window, "auto", **options)


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def metadata(window: int | None) -> Any:
    from vllm import _custom_ops as ops
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionMetadata

    starts = torch.tensor([0, 7, 8, 48], dtype=torch.int32)
    seen = torch.tensor([a + b for a, b in zip(LENGTHS, COMPUTED, strict=True)], dtype=torch.int32)
    table = torch.tensor([[1, 2], [3, 4], [5, 6]], dtype=torch.int32)
    slots = [
        table[request, place // BLOCK].item() * BLOCK + place % BLOCK
        for request, (fresh, before) in enumerate(zip(LENGTHS, COMPUTED, strict=True))
        for place in range(before, before + fresh)
    ]
    scheduled = ops.cpu_attn_get_scheduler_metadata(
        num_reqs=len(LENGTHS),
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        head_dim=SIZE,
        seq_lens=seen,
        dtype=torch.float32,
        query_start_loc=starts,
        causal=True,
        sliding_window_size=-1 if window is None else window,
        isa=LAYER.isa,
        enable_kv_split=False,
    )
    return CPUAttentionMetadata(
        num_actual_tokens=sum(LENGTHS),
        max_query_len=max(LENGTHS),
        query_start_loc=starts,
        max_seq_len=int(seen.max()),
        seq_lens=seen,
        block_table=table,
        slot_mapping=torch.tensor(slots),
        scheduler_metadata=scheduled,
    )


@pytest.mark.parametrize("spare", [0, 3], ids=["exact", "padded"])
@pytest.mark.parametrize(
    "options", [{}, {"window": 16}, {"logits_soft_cap": 2.0}, {"alibi_slopes": [0.5] * HEADS}], ids=str
)
def test_one_call_does_what_two_did(options: dict[str, Any], spare: int) -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl

    from serving.engine.attention import Attention

    given, tokens = metadata(options.get("window")), sum(LENGTHS)
    query = numbers(tokens + spare, HEADS, SIZE, seed=1)
    key, value = numbers(tokens, KV_HEADS, SIZE, seed=2), numbers(tokens, KV_HEADS, SIZE, seed=3)
    answers = []
    for kind in (CPUAttentionBackendImpl, Attention):
        layer, cache = made(kind, **dict(options)), numbers(8, KV_HEADS, BLOCK, 2 * SIZE, seed=4)
        for _ in range(2):  # the second time on halves that are there
            output = torch.zeros(tokens + spare, HEADS, SIZE)
            if kind is CPUAttentionBackendImpl:
                layer.do_kv_cache_update(LAYER, key, value, cache, given.slot_mapping)
            layer.forward(LAYER, query, key, value, cache, given, output)
        answers.append((output, cache))
    assert torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][1], answers[1][1])
    assert answers[0][0][:tokens].abs().min(dim=-1).values.max() > 0


def test_a_cache_that_is_laid_out_anew_is_split_anew() -> None:
    from serving.engine.attention import Attention

    layer, given, tokens = made(Attention), metadata(None), sum(LENGTHS)
    key, value = numbers(tokens, KV_HEADS, SIZE, seed=2), numbers(tokens, KV_HEADS, SIZE, seed=3)
    caches = [torch.zeros(8, KV_HEADS, BLOCK, 2 * SIZE) for _ in range(2)]
    for cache in caches:
        output = torch.empty(tokens, HEADS, SIZE)
        layer.forward(LAYER, numbers(tokens, HEADS, SIZE, seed=1), key, value, cache, given, output)
    assert caches[1].abs().sum() > 0
    assert torch.equal(*caches)


@pytest.mark.parametrize(
    ("special", "updates"),
    [
        ({"sinks": torch.zeros(HEADS)}, 1),
        ({"attn_type": "encoder_decoder"}, 1),
        ({"sinks": torch.zeros(HEADS), "kv_sharing_target_layer_name": "model.layers.0"}, 0),
    ],
    ids=["sinks", "cross", "shared"],
)
def test_whatever_else_there_is_goes_vllms_way(
    monkeypatch: pytest.MonkeyPatch, special: dict[str, Any], updates: int
) -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl

    from serving.engine.attention import Attention

    asked: list[str] = []
    monkeypatch.setattr(CPUAttentionBackendImpl, "do_kv_cache_update", lambda *_: asked.append("update"))
    monkeypatch.setattr(CPUAttentionBackendImpl, "forward", lambda *_: asked.append("forward"))
    some = torch.zeros(1)
    output = made(Attention, **special).forward(LAYER, some, some, some, some, metadata(None), some)
    assert asked == ["update"] * updates + ["forward"]
    assert output is some


def test_a_shared_cache_is_read_and_not_written() -> None:
    from serving.engine.attention import Attention

    layer, given = made(Attention, kv_sharing_target_layer_name="model.layers.0"), metadata(None)
    cache, tokens = numbers(8, KV_HEADS, BLOCK, 2 * SIZE, seed=4), sum(LENGTHS)
    before = cache.clone()
    output = torch.zeros(tokens, HEADS, SIZE)
    layer.forward(LAYER, numbers(tokens, HEADS, SIZE, seed=1), None, None, cache, given, output)
    assert torch.equal(cache, before)
    assert output.abs().sum() > 0


def test_nothing_is_attended_to_while_vllm_warms_up() -> None:
    from serving.engine.attention import Attention

    some = torch.ones(1)
    assert made(Attention).forward(LAYER, some, some, some, some, None, some) is some


def test_vllm_asks_for_its_backend_by_name_and_gets_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.attention.backends import registry

    from serving.engine import attention

    monkeypatch.setattr(registry, "_ATTN_OVERRIDES", dict(registry._ATTN_OVERRIDES))
    attention.attend_at_once()
    chosen = registry.AttentionBackendEnum.CPU_ATTN.get_class()
    assert chosen is attention.Backend
    assert (chosen.get_impl_cls(), chosen.forward_includes_kv_cache_update) == (attention.Attention, True)
    assert chosen.__base__.forward_includes_kv_cache_update is False, "vLLM's own now does so: ours gains nothing"
