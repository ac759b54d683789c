"""The nouns that pass between rooms. All frozen: a step makes a new one, it never edits another's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ServiceClass(StrEnum):
    """What an organisation's plan promises about waiting. The claim carries it, the client never does."""

    INTERACTIVE = "interactive"
    STANDARD = "standard"
    BATCH = "batch"


class Endpoint(StrEnum):
    """The generating endpoints. The value is the path, the same at the gateway and at the replica."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    RESPONSES = "/v1/responses"


TOKENIZE = "/tokenize"
"""Where a replica counts tokens for its gateway. No caller reaches it."""

SPENT = "/domicile/spent"
"""Where a replica tells its gateway what the request that the claim names has cost. No caller reaches it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whose key was checked. Only ``steps/authenticate`` builds one."""

    country: str
    organisation: str
    key_id: str
    service_class: ServiceClass
    models: frozenset[str] | None
    """Model ids granted to the organisation; ``None`` grants every model of the country."""
    weight: float = 1.0
    """The organisation's share of an engine that others want too, over theirs."""

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True)
class Prompt:
    """A validated request for generation. ``body`` is the bytes that the replica gets."""

    endpoint: Endpoint
    model: str
    stream: bool
    include_usage: bool
    body: bytes
    fields: dict[str, object]
    """The parsed body. Read-only by convention: ``body`` is what counts."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer, all of its choices together. ``cached_tokens`` are among ``prompt_tokens``."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    def counts(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
        }


@dataclass(frozen=True, slots=True)
class Address:
    """Where a replica's private listener is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
