"""Fields that tell OpenAI something a replica does not need to know: taken, checked for shape, and without effect.

None of them reaches the prefix cache: vLLM 0.32 names ``prompt_cache_key`` in one of its models and reads it nowhere,
and the cache's salt comes from the caller's key alone.
"""

from __future__ import annotations

from serving.errors import Reason, Refused
from serving.gateway.openai.checks import Table, boolean, members, nullable, one_of, string, wrong_type
from serving.gateway.openai.limits import Limits
from serving.gateway.openai.strict_json import join

MAX_PAIRS = 16
_KEY = string(64)
_VALUE = string(512, empty=True)


def metadata(value: object, param: str, limits: Limits) -> None:
    """Up to sixteen pairs of strings."""
    if not isinstance(value, dict):
        raise wrong_type(value, param, "object")
    if len(value) > MAX_PAIRS:
        raise Refused(Reason.ARRAY_TOO_LONG, param=param, limit=MAX_PAIRS, got=len(value))
    for name, text in value.items():
        _KEY(name, param, limits)
        _VALUE(text, join(param, name), limits)


TIERS = ("auto", "default", "flex", "scale", "priority")

HINTS: Table = {
    "metadata": nullable(metadata),
    "prompt_cache_key": nullable(string(512, empty=True)),
    "prompt_cache_options": nullable(
        members({"mode": one_of("implicit", "explicit"), "ttl": one_of("30m", "12h")}),
    ),
    "prompt_cache_retention": nullable(one_of("in_memory", "24h")),
    "safety_identifier": nullable(string(512, empty=True)),
    "store": nullable(boolean),
    "user": nullable(string(512, empty=True)),
}
