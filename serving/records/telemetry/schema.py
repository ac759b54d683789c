"""The closed schema: every attribute of a span or log, every metric and its labels, and the values that each may have.

What is not described here is dropped, and counted as dropped. A value is of a list that we wrote, of the country's own
file, a number, or an identifier that we made: nothing that a caller wrote fits (R7), and no organisation is named.

The names beginning with ``gen_ai`` are OpenTelemetry's for generative AI, as in its semantic conventions 1.44
(https://opentelemetry.io/docs/specs/semconv/gen-ai/); ``error.type``, ``http.*``, ``code.*`` and ``exception.type`` are
its general ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from serving.records.telemetry import faults
from serving.types import Endpoint, ServiceClass
from tenants.country import Country

Value = str | bool | int | float
Rule = Callable[[Value], bool]

SEMCONV = "https://opentelemetry.io/schemas/1.44.0"
"""The release of the conventions that is followed."""

OPERATIONS = {Endpoint.CHAT: "chat", Endpoint.RESPONSES: "chat", Endpoint.COMPLETIONS: "text_completion"}
PROVIDER = "vllm"


class Outcome(StrEnum):
    """What a request came to."""

    SERVED = "served"
    REFUSED = "refused"
    """It was the caller's fault (4xx)."""
    FAILED = "failed"
    """It was ours (5xx), also where it broke off halfway."""
    LEFT = "left"
    """The client did not wait."""


class Undescribed(ValueError):
    """Something was told that the schema does not know. The text names the attribute and never quotes the value."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """What may be said under a name."""

    name: str
    said: str
    """The rule in words, for the reader of the table."""
    rule: Rule


def _one_of(*values: str) -> tuple[str, Rule]:
    known = frozenset(values)
    return "one of " + ", ".join(sorted(known)), lambda value: value in known


def _matching(pattern: str, said: str) -> tuple[str, Rule]:
    whole = re.compile(pattern)
    return said, lambda value: type(value) is str and whole.fullmatch(value) is not None


def _is_count(value: Value) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_seconds(value: Value) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and 0 <= value < 1e9


def _is_flag(value: Value) -> bool:
    return type(value) is bool


COUNT = ("a whole number", _is_count)
SECONDS = ("seconds", _is_seconds)
FLAG = ("true or false", _is_flag)


def attributes(country: Country) -> Mapping[str, Attribute]:
    """The attributes that there are in one country."""
    return {
        name: Attribute(name, *what)
        for name, what in {
            "domicile.country": _one_of(country.code),
            "domicile.site": _matching(r"[a-z]{2}-[a-z0-9-]{1,40}", "a node's name, which we made"),
            "domicile.request.id": _matching(r"req_[0-9a-f]{32}", "a request's id, which we made"),
            "domicile.service_class": _one_of(*ServiceClass, "unknown"),
            "domicile.outcome": _one_of(*Outcome),
            "domicile.reason": _one_of(*faults.ALL),
            "domicile.rule": _one_of(*faults.RULES),
            "domicile.kept": _one_of("true", "false"),
            "domicile.state": _one_of("serving", "draining", "unreachable"),
            "domicile.signal": _one_of("trace", "log", "metric", "attribute"),
            "domicile.attempt": COUNT,
            "gen_ai.operation.name": _one_of(*OPERATIONS.values()),
            "gen_ai.provider.name": _one_of(PROVIDER),
            "gen_ai.request.model": _one_of(*(model.id for model in country.models), "unknown"),
            "gen_ai.request.stream": FLAG,
            "gen_ai.response.time_to_first_chunk": SECONDS,
            "gen_ai.token.type": _one_of("input", "output"),
            "gen_ai.usage.input_tokens": COUNT,
            "gen_ai.usage.output_tokens": COUNT,
            "gen_ai.usage.cache_read.input_tokens": COUNT,
            "http.route": _one_of(*Endpoint),
            "http.response.status_code": COUNT,
            "error.type": _one_of(*faults.ALL),
            "exception.type": _matching(r"[A-Za-z_][A-Za-z0-9_]{0,63}", "the name of a class"),
            "code.file.path": _matching(r"[A-Za-z0-9_./-]{1,160}\.pyx?", "a source file, below its package's folder"),
            "code.line.number": COUNT,
            "service.name": _one_of("domicile-gateway", "domicile-replica"),
            "service.namespace": _one_of("domicile"),
            "service.version": _matching(r"[0-9A-Za-z.+-]{1,40}", "the release"),
            "service.instance.id": _matching(r"[0-9a-f]{16}", "random, made when the process began"),
        }.items()
    }


class Span(StrEnum):
    """The spans that there are. The gateway's first one is named after operation and model, as OpenTelemetry wants."""

    AUTHENTICATE = "authenticate"
    RESIDENCY = "residency"
    READ = "read"
    """The body arrives and is validated."""
    ATTEMPT = "attempt"
    """A replica was chosen and asked, until its answer's end."""
    REPLICA = "replica"
    """The same, as the replica saw it."""
    QUEUE = "queue"
    """Waiting for a turn in front of the engine."""
    PREFILL = "prefill"
    """From the turn to the first token."""
    DECODE = "decode"
    GENERATE = "generate"
    """Prefill and decode, where nobody could tell them apart."""


class Schema:
    """What may be said in one country."""

    refuses = False
    """Whether what is not described raises :class:`Undescribed`, as in tests, instead of being dropped."""

    def __init__(self, country: Country) -> None:
        self.attributes = attributes(country)
        self.dropped = 0
        """Attributes and label sets that nobody was told, for not being described."""

    def allows(self, name: str, value: Value) -> bool:
        """Whether this may be said. What may not is counted."""
        known = self.attributes.get(name)
        if known is not None and known.rule(value):
            return True
        self.dropped += 1
        if self.refuses:
            raise Undescribed(f"'{name}' " + ("cannot have this value" if known else "is not described"))
        return False

    def kept(self, said: Mapping[str, Value]) -> dict[str, Value]:
        """What of it may be said."""
        return {name: value for name, value in said.items() if self.allows(name, value)}
