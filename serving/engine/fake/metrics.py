"""What the fake engine tells of itself: vLLM's names, in Prometheus' text format 1.0.0."""

from __future__ import annotations

from dataclasses import dataclass

from serving.engine.port import EngineFacts, Load

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"


@dataclass(slots=True)
class Counters:
    """What the engine has done since it was made, and the tokens that its cache holds for running requests."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    queued: int = 0
    queued_s: float = 0.0
    held_tokens: int = 0


def text(facts: EngineFacts, load: Load, counters: Counters, cache_tokens: int) -> str:
    """``cache_tokens`` is what the cache has room for."""
    usage = min(1.0, counters.held_tokens / cache_tokens)
    labels = f'engine="0",model_name="{facts.model}"'
    lines = []
    for name, kind, value in (
        ("vllm:num_requests_running", "gauge", load.running),
        ("vllm:num_requests_waiting", "gauge", load.waiting),
        ("vllm:kv_cache_usage_perc", "gauge", usage),
        ("vllm:prompt_tokens_total", "counter", counters.prompt_tokens),
        ("vllm:generation_tokens_total", "counter", counters.generation_tokens),
    ):
        lines += [f"# TYPE {name} {kind}", f"{name}{{{labels}}} {value}"]
    queue = "vllm:request_queue_time_seconds"
    lines += [
        f"# TYPE {queue} histogram",
        f'{queue}_bucket{{{labels},le="+Inf"}} {counters.queued}',
        f"{queue}_count{{{labels}}} {counters.queued}",
        f"{queue}_sum{{{labels}}} {counters.queued_s}",
        "# TYPE domicile:outstanding_tokens gauge",
        f"domicile:outstanding_tokens {load.outstanding_tokens}",
    ]
    return "\n".join(lines) + "\n"
