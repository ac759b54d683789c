"""A model's layers on CPUs, computed faster than vLLM does it and as exactly.

Linear layers are those of :mod:`kernels.linear`: weights read in bfloat16, computed with in float32. vLLM asks its
quantisation, a documented interface, how each layer is to be computed. This one quantises nothing: a weight that
bfloat16 would change is left to vLLM, and so is every layer that is no plain one.

Norms are vLLM's own compiled ones. It has them for CPUs, and calls them on GPUs only: where nothing is compiled first,
eight small operations do the same in eight times as long. Attention is :mod:`serving.engine.attention`'s.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig, QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding

from kernels import linear
from serving.engine import attention
from serving.engine.arguments import LINEAR

PACKED = "packed"
LAYERS = "domicile_layers"

kernel = linear.kernel("cpu")


def prepare_layers(config: VllmConfig) -> None:
    """Have the model that is about to be loaded use these layers, where they were chosen.

    With another type than float32, or with weights that are quantised already, linear layers stay as they are.
    """
    if config.additional_config.get(LINEAR) != PACKED:
        return
    # Part of what a compiled model is found by: one that was compiled for other layers is compiled anew.
    config.additional_config[LAYERS] = _written()
    if RMSNorm.__name__ not in op_registry_oot:
        RMSNorm.register_oot(FusedNorm)
    attention.attend_at_once()
    if config.quant_config is None and config.model_config.dtype == torch.float32:
        kernel.warm()
        config.quant_config = PackedLayers()


def _written() -> str:
    """One value for how these layers are written, which changes with it."""
    return sha256(Path(__file__).read_bytes() + Path(attention.__file__).read_bytes()).hexdigest()


class FusedNorm(RMSNorm):  # type: ignore[misc] # mypy does not follow vllm
    """Named in vLLM's registry in place of its own, which it asks for by this name."""

    def forward_cpu(self, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """As ``forward_native``, which is taken for all that the compiled one does not do."""
        whole = self.has_weight and self.variance_size_override is None and x.is_contiguous()
        if not whole or x.dtype != self.weight.dtype or torch.compiler.is_compiling():
            return self.forward_native(x, residual)
        if residual is None:
            out = torch.empty_like(x)
            torch.ops._C.rms_norm(out, x, self.weight.data, self.variance_epsilon)
            return out
        if not residual.is_contiguous():
            return self.forward_native(x, residual)
        torch.ops._C.fused_add_rms_norm(x, residual, self.weight.data, self.variance_epsilon)
        return x, residual


class PackedLayers(QuantizationConfig):  # type: ignore[misc] # mypy does not follow vllm
    """Which layers are packed."""

    def get_quant_method(self, layer: nn.Module, prefix: str) -> QuantizeMethodBase | None:
        if isinstance(layer, LinearBase):
            return PackedLinear()
        if isinstance(layer, VocabParallelEmbedding):
            return PackedHead()
        return None

    def get_name(self) -> str:
        return LINEAR

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return [torch.float32]

    @classmethod
    def get_min_capability(cls) -> int:
        return 0

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PackedLayers:
        return cls()


class PackedLinear(UnquantizedLinearMethod):  # type: ignore[misc]
    """vLLM's own method, whose product is another."""

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        if not _pack(layer):
            super().process_weights_after_loading(layer)
            return
        layer.weight = nn.Parameter(torch.empty(0), requires_grad=False)


class PackedHead(UnquantizedEmbeddingMethod):  # type: ignore[misc]
    """For what turns states to logits. Tokens are looked up in the same weight, which therefore stays."""

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        if not _pack(layer):
            super().process_weights_after_loading(layer)


def _pack(layer: nn.Module) -> bool:
    """Whether the layer's product is ours from here on. ``cpu_linear`` is what vLLM's methods call on CPUs."""
    weight = layer.weight.data
    plain = weight.dim() == 2 and weight.numel() and not getattr(layer, "_cpu_skip_gemm_dispatch", False)
    packed = getattr(layer.weight, PACKED, None) or (linear.pack(weight) if plain else None)
    if packed is None:
        return False
    layer.weight.packed = packed  # a head that shares its weight with the embedding shares this too

    def product(inputs: Tensor, _: Tensor, bias: Tensor | None = None) -> Tensor:
        if torch.compiler.is_compiling():
            return torch.ops.domicile.packed_linear(inputs, packed.data, packed.outputs, bias)
        return kernel.apply(inputs, packed, bias)

    layer.cpu_linear = product
    return True


def _shaped(inputs: Tensor, data: Tensor, outputs: int, bias: Tensor | None = None) -> Tensor:
    return inputs.new_empty(*inputs.shape[:-1], outputs)


# The product as one operation of a compiled graph, which cannot look into it. By torch's lower interface: what its
# decorator adds to each call, a hundred and twenty times a step, is for operations that differentiate or change inputs.
_operations = torch.library.Library("domicile", "DEF")
_operations.define("packed_linear(Tensor inputs, Tensor data, int outputs, Tensor? bias=None) -> Tensor")
_operations.impl("packed_linear", kernel.product, "CPU")
torch.library.register_fake("domicile::packed_linear", _shaped, lib=_operations)
