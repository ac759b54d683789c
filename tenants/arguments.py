"""Which of vLLM's arguments a country may set, and why the others are refused.

The list is closed on purpose: an argument that a new vLLM release brings stays refused until somebody has
judged it, so an upgrade cannot open a way across the border (R11). Names are those of ``vllm serve`` 0.32,
in snake case.
"""

from __future__ import annotations

from difflib import get_close_matches

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

_REASONS: dict[str, tuple[str, ...]] = {
    "models[].id and models[].source say it": ("model", "served_model_name", "tokenizer", "model_weights"),
    "every served model is declared under models": ("lora_modules", "enable_lora", "default_mm_loras"),
    "engine.tensor_parallel_size says it": ("tensor_parallel_size",),
    "engine.pipeline_parallel_size says it": ("pipeline_parallel_size",),
    "engine.profile decides it": ("enforce_eager", "optimization_level", "compilation_config"),
    "models[].replicas and the label of the country decide where workers run": (
        "data_parallel_size", "data_parallel_size_local", "data_parallel_rank", "data_parallel_start_rank",
        "data_parallel_address", "data_parallel_rpc_port", "data_parallel_backend", "data_parallel_hybrid_lb",
        "data_parallel_external_lb", "distributed_executor_backend", "master_addr", "master_port", "nnodes",
        "node_rank",
    ),
    "the replica owns its private listener, and only the gateway may reach it": (
        "host", "port", "grpc_port", "uds", "api_key", "root_path", "middleware", "allow_credentials",
        "allowed_origins", "allowed_methods", "allowed_headers", "ssl_keyfile", "ssl_certfile", "ssl_ca_certs",
        "ssl_cert_reqs", "ssl_ciphers", "enable_ssl_refresh", "enable_offline_docs", "disable_fastapi_docs",
        "enable_request_id_headers", "enable_tokenizer_info_endpoint", "uvicorn_log_level",
        "disable_uvicorn_access_log",
    ),
    "the batching core owns scheduling": (
        "scheduler_cls", "scheduling_policy", "async_scheduling", "max_num_scheduled_tokens", "disable_log_stats",
        "shutdown_timeout",
    ),
    "the gateway owns the shape of answers": (
        "enable_prompt_tokens_details", "enable_force_include_usage", "structured_outputs_config",
        "return_tokens_as_token_ids",
    ),
    "it runs code that did not come with this release": (
        "trust_remote_code", "logits_processors", "worker_cls", "worker_extension_cls", "model_class_overrides",
        "io_processor_plugin", "reasoning_parser_plugin", "tool_parser_plugin",
    ),
    "it reaches outside the country (R8)": (
        "hf_token", "hf_config_path", "download_dir", "code_revision", "tool_server", "model_loader_extra_config",
        "speculative_config", "spec_model",
    ),
    "it moves cached prompts or weights to other machines (R6)": (
        "kv_transfer_config", "kv_events_config", "ec_transfer_config", "kv_offloading_backend",
        "weight_transfer_config",
    ),
    "it writes what was asked or answered outside the country's journal (R6, R7)": (
        "otlp_traces_endpoint", "collect_detailed_traces", "enable_log_requests", "enable_log_outputs",
        "enable_log_deltas", "log_error_stack", "log_config_file", "log_level", "logging_config", "max_log_len",
        "profiler_config",
    ),
    "weaker hashes let one organisation find another's cached prompts (R9)": ("prefix_caching_hash_algo",),
    "it lets a caller reach this machine's files, network or memory": (
        "allowed_local_media_path", "allowed_media_domains", "enable_prompt_embeds", "enable_mm_embeds",
        "media_io_kwargs", "trust_request_chat_template", "trust_request_mm_kwargs",
    ),
}  # fmt: skip

REFUSED: dict[str, str] = {name: reason for reason, names in _REASONS.items() for name in names}
"""Argument name to the reason why no country may set it."""


def judge(name: str) -> str:
    """Return ``name`` if a country may set it; raise :class:`ValueError` with the reason if not."""
    if name in ALLOWED:
        return name
    if reason := REFUSED.get(name):
        raise ValueError(f"may not be set here: {reason}")
    near = get_close_matches(name.replace("-", "_"), sorted(ALLOWED), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"is not among the vLLM arguments that a country may set{hint}")
