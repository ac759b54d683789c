"""What the fake engine's core gives to its API layer, token by token."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

from serving.engine.fake.reading import Ask
from serving.engine.fake.text import WORDS


@dataclass(frozen=True, slots=True)
class Token:
    """One token of one choice."""

    choice: int
    place: int
    text: str
    cached: int
    """Tokens of the prompt that were found in the prefix cache."""
    finish_reason: str | None = None
    stop_reason: str | None = None

    @property
    def chosen(self) -> dict[str, Any]:
        """Its log probability. An invented one, the same whenever the place is."""
        return {"token": self.text, "logprob": -0.25 - self.place % 4, "bytes": list(self.text.encode())}

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """The likeliest tokens at its place, itself the first."""
        others = [
            {"token": f" {word}", "logprob": -9.0 - at, "bytes": list(f" {word}".encode())}
            for at, word in enumerate(WORDS)
        ]
        return [self.chosen, *others]


Generate = Callable[[Ask], AsyncGenerator[Token, None]]
