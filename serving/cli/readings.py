"""From an engine's metrics to the values of a load test's samples."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_GAUGES = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv_cache_usage": "vllm:kv_cache_usage_perc",
    "outstanding_tokens": "domicile:outstanding_tokens",
}
_RATES = {
    "prompt_tokens_per_s": "vllm:prompt_tokens_total",
    "output_tokens_per_s": "vllm:generation_tokens_total",
}
_QUEUED_S, _QUEUED = "vllm:request_queue_time_seconds_sum", "vllm:request_queue_time_seconds_count"
_WANTED = frozenset({*_GAUGES.values(), *_RATES.values(), _QUEUED_S, _QUEUED})
_LINE = re.compile(r"([a-z_]+:[a-z_]+)(?:\{[^}]*\})? (\S+)")


def metrics(text: str) -> dict[str, float]:
    """The metrics that samples are made of, from Prometheus' text format. A replica has one engine.

    Raises :class:`ValueError` where one is missing.
    """
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is not None and match[1] in _WANTED:
            found[match[1]] = float(match[2])
    if missing := _WANTED - found.keys():
        raise ValueError(f"no {', '.join(sorted(missing))}")
    return found


def values(before: Mapping[str, float], now: Mapping[str, float], elapsed_s: float) -> dict[str, float]:
    """A sample's values from two readings. ``queue_s`` is the mean over those that finished in between, if any."""
    told = {name: now[metric] for name, metric in _GAUGES.items()}
    told |= {name: max(0.0, now[metric] - before[metric]) / elapsed_s for name, metric in _RATES.items()}
    if (begun := now[_QUEUED] - before[_QUEUED]) > 0:
        told["queue_s"] = (now[_QUEUED_S] - before[_QUEUED_S]) / begun
    return {name: value for name, value in told.items() if math.isfinite(value)}
