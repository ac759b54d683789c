"""What an answer cost, in tokens."""

from __future__ import annotations

from serving.gateway.answers.objects import Json
from serving.types import Usage


def usage_of(usage: Json) -> Usage:
    """From a ``usage`` object of any endpoint."""
    if "input_tokens" in usage:
        details = usage["input_tokens_details"]
        return Usage(usage["input_tokens"], usage["output_tokens"], details["cached_tokens"])
    details = usage.get("prompt_tokens_details") or {}
    return Usage(usage["prompt_tokens"], usage["completion_tokens"], details.get("cached_tokens") or 0)
