"""vLLM's attention on CPUs, called once a layer where vLLM calls it twice.

What takes time in a step of few tokens is less the attention than the way to it: vLLM puts keys and values into the
cache by one operation and attends by another, and for each splits the cache into its halves anew. Here one operation
does both, on halves that are made once. The kernels are vLLM's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend, CPUAttentionBackendImpl, CPUAttentionMetadata
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend


def attend_at_once() -> None:
    """Models that are built from now on attend so: vLLM's registry, a documented interface, names this backend."""
    register_backend(AttentionBackendEnum.CPU_ATTN, f"{__name__}.{Backend.__qualname__}")


class Attention(CPUAttentionBackendImpl):  # type: ignore[misc] # mypy does not follow vllm
    """Of one layer."""

    _split: Tensor | None = None
    _halves: tuple[Tensor, Tensor]

    def forward(
        self,
        layer: Any,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        kv_cache: Tensor,
        attn_metadata: CPUAttentionMetadata | None,
        output: Tensor,
        output_scale: Tensor | None = None,
        output_block_scale: Tensor | None = None,
    ) -> Tensor:
        """As vLLM's, tokens first put into the cache; ``attn_metadata`` is absent while vLLM warms up."""
        if attn_metadata is None:
            return output
        fresh = key is not None and value is not None and self.kv_sharing_target_layer_name is None
        quantised = output_scale is not None or output_block_scale is not None
        if quantised or self.sinks is not None or self.attn_type != AttentionType.DECODER:
            if fresh:
                self.do_kv_cache_update(layer, key, value, kv_cache, attn_metadata.slot_mapping)
            super().forward(layer, query, key, value, kv_cache, attn_metadata, output, output_scale, output_block_scale)
            return output
        keys, values = self._halves if kv_cache is self._split else self._halved(kv_cache)
        scales = layer._k_scale_float, layer._v_scale_float, self.kv_cache_dtype
        if fresh:
            torch.ops._C.cpu_attn_reshape_and_cache.default(
                key, value, keys, values, attn_metadata.slot_mapping, layer.isa, *scales
            )
        tokens = attn_metadata.num_actual_tokens
        whole = query.shape[0] == tokens
        torch.ops._C.cpu_attention_with_kv_cache.default(
            query if whole else query[:tokens],
            keys,
            values,
            output if whole else output[:tokens],
            attn_metadata.query_start_loc,
            attn_metadata.seq_lens,
            self.scale,
            attn_metadata.causal,
            self.alibi_slopes,
            self.sliding_window,
            attn_metadata.block_table,
            self.logits_soft_cap,
            attn_metadata.scheduler_metadata,
            None,
            attn_metadata.dynamic_causal,
            *scales,
        )
        return output

    def _halved(self, kv_cache: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a cache [blocks, heads, tokens of a block, both]."""
        blocks, heads, tokens, _ = kv_cache.shape
        keys, values = kv_cache.view((blocks, heads, 2 * tokens, -1)).chunk(2, dim=2)
        self._split, self._halves = kv_cache, (keys, values)
        return self._halves


class Backend(CPUAttentionBackend):  # type: ignore[misc]
    """vLLM's, but for who puts tokens into the cache."""

    forward_includes_kv_cache_update = True

    @staticmethod
    def get_impl_cls() -> type[Attention]:
        return Attention
