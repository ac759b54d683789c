"""What an answer cost, in tokens."""

from __future__ import annotations

from dataclasses import dataclass

from serving.gateway.answers.objects import Json


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of one answer, all of its choices together. ``cached`` counts those of ``prompt`` found in the cache."""

    prompt: int
    completion: int
    cached: int

    @classmethod
    def of(cls, usage: Json) -> Spent:
        """From a ``usage`` object of any endpoint."""
        if "input_tokens" in usage:
            details = usage["input_tokens_details"]
            return cls(usage["input_tokens"], usage["output_tokens"], details["cached_tokens"])
        details = usage.get("prompt_tokens_details") or {}
        return cls(usage["prompt_tokens"], usage["completion_tokens"], details.get("cached_tokens") or 0)
