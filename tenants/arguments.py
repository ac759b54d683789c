"""Which of vLLM's arguments a country may set, and why the others are refused.

The list is closed on purpose: an argument that a new vLLM release brings stays refused until somebody has
judged it, so an upgrade cannot open a way across the border (R11). Names are those of ``vllm serve`` 0.32,
in snake case.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import NamedTuple

from pydantic import JsonValue

from tenants.rules import Weakens

ALLOWED = frozenset(
    {
        # The model and how it is read.
        "chat_template", "chat_template_content_format", "config_format", "convert", "default_chat_template_kwargs",
        "dtype", "generation_config", "hf_overrides", "language_model_only", "load_format", "max_model_len",
        "max_parallel_loading_workers", "model_impl", "override_generation_config", "pooler_config", "quantization",
        "quantization_config", "revision", "runner", "safetensors_load_strategy", "seed", "tokenizer_mode",
        "tokenizer_revision",
        # Tools, reasoning, media.
        "enable_auto_tool_choice", "exclude_tools_when_tool_choice_none", "limit_mm_per_prompt",
        "mm_processor_cache_gb", "reasoning_parser", "tool_call_parser", "tool_strict_level",
        # Memory and caches.
        "block_size", "cpu_offload_gb", "enable_prefix_caching", "gpu_memory_utilization", "kv_cache_dtype",
        "kv_cache_memory_bytes", "kv_offloading_size", "mamba_block_size", "mamba_cache_dtype",
        "mamba_ssm_cache_dtype", "num_gpu_blocks_override",
        # Speed.
        "attention_backend", "cudagraph_capture_sizes", "disable_cascade_attn", "disable_custom_all_reduce",
        "disable_sliding_window", "enable_chunked_prefill", "enable_expert_parallel", "long_prefill_token_threshold",
        "max_cudagraph_capture_size", "max_num_batched_tokens", "max_num_queued_reqs", "max_num_queued_tokens",
        "max_num_seqs", "moe_backend", "numa_bind", "performance_mode", "spec_method", "spec_tokens",
        "stream_interval",
    }
)  # fmt: skip

_REASONS: dict[tuple[str | None, str], tuple[str, ...]] = {
    (None, "models[].id and models[].source say it"): ("model", "served_model_name", "tokenizer", "model_weights"),
    (None, "every served model is declared under models"): ("lora_modules", "enable_lora", "default_mm_loras"),
    (None, "engine.tensor_parallel_size says it"): ("tensor_parallel_size",),
    (None, "engine.pipeline_parallel_size says it"): ("pipeline_parallel_size",),
    (None, "engine.profile decides it"): ("enforce_eager", "optimization_level", "compilation_config"),
    ("R2", "models[].replicas and the label of the country decide where workers run"): (
        "data_parallel_size", "data_parallel_size_local", "data_parallel_rank", "data_parallel_start_rank",
        "data_parallel_address", "data_parallel_rpc_port", "data_parallel_backend", "data_parallel_hybrid_lb",
        "data_parallel_external_lb", "distributed_executor_backend", "master_addr", "master_port", "nnodes",
        "node_rank",
    ),
    ("R4", "the replica owns its private listener, and only the gateway may reach it"): (
        "host", "port", "grpc_port", "uds", "api_key", "root_path", "middleware", "allow_credentials",
        "allowed_origins", "allowed_methods", "allowed_headers", "ssl_keyfile", "ssl_certfile", "ssl_ca_certs",
        "ssl_cert_reqs", "ssl_ciphers", "enable_ssl_refresh", "enable_offline_docs", "disable_fastapi_docs",
        "enable_request_id_headers", "enable_tokenizer_info_endpoint", "uvicorn_log_level",
        "disable_uvicorn_access_log",
    ),
    (None, "the batching core owns scheduling"): (
        "scheduler_cls", "scheduling_policy", "async_scheduling", "max_num_scheduled_tokens", "disable_log_stats",
        "shutdown_timeout",
    ),
    (None, "the gateway owns the shape of answers"): (
        "enable_prompt_tokens_details", "enable_force_include_usage", "structured_outputs_config",
        "return_tokens_as_token_ids",
    ),
    ("R8", "it runs code that did not come with this release"): (
        "trust_remote_code", "logits_processors", "worker_cls", "worker_extension_cls", "model_class_overrides",
        "io_processor_plugin", "reasoning_parser_plugin", "tool_parser_plugin",
    ),
    ("R8", "it reaches outside the country"): (
        "hf_token", "hf_config_path", "download_dir", "code_revision", "tool_server", "model_loader_extra_config",
        "speculative_config", "spec_model",
    ),
    ("R6", "it moves cached prompts or weights to other machines"): (
        "kv_transfer_config", "kv_events_config", "ec_transfer_config", "kv_offloading_backend",
        "weight_transfer_config",
    ),
    ("R7", "it writes what was asked or answered outside the country's journal"): (
        "otlp_traces_endpoint", "collect_detailed_traces", "enable_log_requests", "enable_log_outputs",
        "enable_log_deltas", "log_error_stack", "log_config_file", "log_level", "logging_config", "max_log_len",
        "profiler_config",
    ),
    ("R9", "weaker hashes let one organisation find another's cached prompts"): ("prefix_caching_hash_algo",),
    ("R6", "it lets a caller reach this machine's files, network or memory"): (
        "allowed_local_media_path", "allowed_media_domains", "enable_prompt_embeds", "enable_mm_embeds",
        "media_io_kwargs", "trust_request_chat_template", "trust_request_mm_kwargs",
    ),
}  # fmt: skip


class NotAllowed(NamedTuple):
    """Why no country may set an argument."""

    rule: str | None
    """The rule that it would weaken, or ``None`` where something else says it already."""
    reason: str


REFUSED: dict[str, NotAllowed] = {
    name: NotAllowed(rule, reason) for (rule, reason), names in _REASONS.items() for name in names
}
"""Argument name to the reason why no country may set it."""

_CODE_KEYS = frozenset({"auto_map", "trust_remote_code", "custom_pipelines"})
"""What names code of the checkpoint's own, wherever in a model's configuration it stands."""


def judge(name: str) -> str:
    """Return ``name`` if a country may set it; raise :class:`ValueError` with the reason if not."""
    if name in ALLOWED:
        return name
    if refusal := REFUSED.get(name):
        reason = f"may not be set here: {refusal.reason}"
        raise ValueError(reason) if refusal.rule is None else Weakens(refusal.rule, reason, "take it out")
    near = get_close_matches(name.replace("-", "_"), sorted(ALLOWED), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"is not among the vLLM arguments that a country may set{hint}")


def judge_values(arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the arguments if none of their values weakens a rule; raise :class:`Weakens` for the first that does."""
    for name, value in arguments.items():
        if keys := _CODE_KEYS & _keys(value):
            raise Weakens(
                "R8",
                f"'{name}' names {', '.join(sorted(keys))}: it runs code that did not come with this release",
                "take it out, and use a model that the pinned vLLM knows by itself",
            )
        if name in _FILES and isinstance(value, str) and "://" in value:
            raise Weakens(
                "R8",
                f"'{name}' names an address: what an engine reads lies on the country's own nodes",
                "put the file there and name its path",
            )
    return arguments


_FILES = frozenset({"chat_template", "generation_config", "hf_overrides"})


def _keys(value: JsonValue) -> set[str]:
    """Every key anywhere in a value."""
    if isinstance(value, dict):
        return set(value).union(*map(_keys, value.values()))
    return set().union(*map(_keys, value)) if isinstance(value, list) else set()
