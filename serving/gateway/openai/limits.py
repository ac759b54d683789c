"""What one deployment allows a single request to ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that differ between deployments. Bounds that never differ stand beside the check that uses them."""

    context_length: int
    """Tokens of the longest context that a replica of the model serves."""
    country: str
    """ISO 3166-1 alpha-2 code of the country whose gateway reads the body."""
    max_choices: int = 8
    max_prompts: int = 64
    max_sequences: int = 128
    """Prompts times choices: what one completions request may put into the batch."""
    max_image_bytes: int = 4 << 20
    max_image_pixels: int = 16 << 20
    max_request_pixels: int = 64 << 20
    """All images of a request together: many small files can each unpack to a large picture."""
