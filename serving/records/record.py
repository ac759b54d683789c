"""One record of the audit log, and the line it stands in.

A record holds identifiers and numbers of a closed schema: no field takes text that somebody wrote, so no prompt or
answer can stand in one (R7). A line is compact JSON in a fixed order, and names the hash of the line before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

import orjson

from serving.records.identifiers import Rule, content_digest, count, line_hash, matching, name, word

GENESIS = "0" * 64
"""What the first line names as the hash of the line before it."""

Value = str | int


class Kind(StrEnum):
    """The closed list of what is recorded."""

    REQUEST = "request"
    REFUSAL = "refusal"
    PLACEMENT = "placement"
    SCALING = "scaling"
    ADMIN = "admin"
    POLICY = "policy"
    KEY = "key"
    # The log's own.
    CHECKPOINT = "checkpoint"
    REMOVAL = "removal"
    RECOVERY = "recovery"


OWN = frozenset({Kind.CHECKPOINT, Kind.REMOVAL, Kind.RECOVERY})
"""Kinds that only the log itself writes."""


_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("request", "receipt", "organisation", "key", "actor", "subject"), name),
    **dict.fromkeys(("model", "replica", "node", "site"), name),
    **dict.fromkeys(("endpoint", "outcome", "rule", "reason", "action"), word),
    **dict.fromkeys(("model_digest", "policy_digest", "former_digest", "torn_digest"), content_digest),
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "cached_tokens", "duration_ms", "status"), count),
    **dict.fromkeys(("wanted", "running", "adopted", "torn_bytes", "times"), count),
    "statement": matching(r"[A-Za-z0-9_.-]{1,2048}"),
}
"""A name means the same in every kind."""


@dataclass(frozen=True, slots=True)
class _Schema:
    required: frozenset[str]
    optional: frozenset[str] = frozenset()


def _schema(required: str, optional: str = "") -> _Schema:
    return _Schema(frozenset(required.split()), frozenset(optional.split()))


_SCHEMAS: Mapping[Kind, _Schema] = {
    Kind.REQUEST: _schema(
        "request receipt organisation model model_digest policy_digest site node outcome"
        " prompt_tokens completion_tokens cached_tokens",
        "key endpoint status duration_ms",
    ),
    # With ``times``, a record stands for so many like it: see serving/records/refusals.py.
    Kind.REFUSAL: _schema("request rule reason", "organisation key endpoint model site node status duration_ms times"),
    Kind.PLACEMENT: _schema("action", "model replica model_digest site node rule reason actor outcome"),
    Kind.SCALING: _schema("model wanted running", "reason actor outcome"),
    Kind.ADMIN: _schema("action", "actor subject organisation outcome"),
    Kind.POLICY: _schema("action policy_digest", "former_digest actor outcome rule"),
    Kind.KEY: _schema("action key", "organisation actor outcome"),
    Kind.CHECKPOINT: _schema("statement"),
    Kind.REMOVAL: _schema("statement"),
    Kind.RECOVERY: _schema("adopted torn_bytes", "torn_digest"),
}


@dataclass(frozen=True, slots=True)
class Record:
    """What is to be recorded.

    Raises:
        ValueError: a field that its kind does not have, lacks, or a value that is no such identifier or number. The
            text names the field and never quotes the value.
    """

    kind: Kind
    fields: Mapping[str, Value]

    def __post_init__(self) -> None:
        schema, names = _SCHEMAS[self.kind], self.fields.keys()
        if lacking := schema.required - names:
            raise ValueError(f"a record of kind {self.kind} lacks {', '.join(sorted(lacking))}")
        if foreign := names - schema.required - schema.optional:
            raise ValueError(f"a record of kind {self.kind} has no {', '.join(sorted(foreign))}")
        for field, value in self.fields.items():
            if not _RULES[field](value):
                raise ValueError(f"a record of kind {self.kind} cannot say this as {field}")


class Line(NamedTuple):
    """A line of the log, read."""

    seq: int
    time: str
    kind: str
    fields: dict[str, object]
    prev: str
    stepped: bool


_MEMBERS = ("seq", "time", "kind", "fields", "prev")
_STEPPED = ("seq", "time", "clock_stepped", "kind", "fields", "prev")
_a_time = matching(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")


def encode(seq: int, time: str, record: Record, prev: str, stepped_ms: int = 0) -> bytes:
    """The line of a record, its newline included; ``stepped_ms`` is how far the clock went back before it."""
    stepped = {"clock_stepped": stepped_ms} if stepped_ms else {}
    kind, fields = record.kind.value, record.fields
    line = {"seq": seq, "time": time, **stepped, "kind": kind, "fields": fields, "prev": prev}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def decode(raw: bytes) -> Line | None:
    """The line, or ``None`` for bytes that :func:`encode` does not write."""
    try:
        value = orjson.loads(raw)
        # Written again and compared: there is one spelling, and no room for a second key or a space.
        if type(value) is not dict or orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE) != raw:
            return None
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    members = tuple(value)
    stepped = members == _STEPPED
    if members != _MEMBERS and not (stepped and count(value["clock_stepped"])):
        return None
    seq, time, kind, fields, prev = (value[member] for member in _MEMBERS)
    right = count(seq) and _a_time(time) and type(kind) is str and type(fields) is dict and line_hash(prev)
    return Line(seq, time, kind, fields, prev, stepped) if right else None


def digest(raw: bytes) -> str:
    """The hash of a line, its newline included: what ``sha256sum`` says of it."""
    return sha256(raw).hexdigest()
