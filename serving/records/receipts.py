"""Receipts: what was served, where and by which model, signed so that a stranger needs only the public key.

A receipt is a JWS (:mod:`serving.records.jws`). It names the hash of the audit line before its own, so every receipt
that somebody holds is also a witness of the log up to there.
"""

from __future__ import annotations

import re
import secrets
from base64 import b32hexencode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from serving.records.batch import Written
from serving.records.errors import Check, Rejected
from serving.records.identifiers import Rule, content_digest, count, line_hash, matching, name
from serving.records.jwks import PublicKeys
from serving.records.jws import opened, require_signed_in_time, seal
from serving.records.record import Kind, Record
from serving.records.signing import Signer
from serving.types import Usage

TYPE = "domicile-receipt+jws"
PREFIX = "rcpt_"
ID = re.compile(PREFIX + r"[0-9a-v]{26}")
LEEWAY_S = 60
"""How far the verifier's clock may be behind the country's."""


class Outcome(StrEnum):
    """How an answer ended."""

    COMPLETED = "completed"
    CLIENT_LEFT = "client_left"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that was served, as far as it came. :meth:`record` raises ``ValueError`` for what is no identifier."""

    receipt: str
    """The receipt's id: see :func:`new_receipt_id`."""
    request: str
    organisation: str
    site: str
    node: str
    model: str
    model_digest: str
    """``sha256:`` and hex, as the policy's."""
    policy_digest: str
    outcome: Outcome
    usage: Usage
    key: str
    """Id of the key that was called with."""
    endpoint: str
    """A word such as ``chat``."""
    duration_ms: int

    def record(self) -> Record:
        """What the audit log keeps."""
        return Record(
            Kind.REQUEST,
            {
                "request": self.request,
                "receipt": self.receipt,
                "organisation": self.organisation,
                "key": self.key,
                "endpoint": self.endpoint,
                "model": self.model,
                "model_digest": self.model_digest,
                "policy_digest": self.policy_digest,
                "site": self.site,
                "node": self.node,
                "outcome": self.outcome.value,
                **self.usage.counts(),
                "duration_ms": self.duration_ms,
            },
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a receipt states."""

    id: str
    iat: int
    """When it was signed, in seconds since the epoch."""
    request: str
    country: str
    site: str
    node: str
    organisation: str
    model: str
    model_digest: str
    policy_digest: str
    usage: Usage
    outcome: Outcome
    audit: Written


def new_receipt_id(milliseconds: int) -> str:
    """``rcpt_`` and 26 characters of base32hex: 48 bits of time, so that a store grows at its end, and 80 of chance."""
    raw = milliseconds.to_bytes(6) + secrets.token_bytes(10)
    return PREFIX + b32hexencode(raw).decode().rstrip("=").lower()


def issue(answered: Answered, country: str, audit: Written, signer: Signer, iat: int) -> str:
    """The signed receipt. Raises :class:`~serving.records.errors.CustodyError`."""
    return seal(
        signer,
        TYPE,
        {
            "id": answered.receipt,
            "iat": iat,
            "request": answered.request,
            "country": country,
            "site": answered.site,
            "node": answered.node,
            "organisation": answered.organisation,
            "model": answered.model,
            "model_digest": answered.model_digest,
            "policy_digest": answered.policy_digest,
            "usage": answered.usage.counts(),
            "outcome": answered.outcome.value,
            "audit": audit._asdict(),
        },
    )


def verify(token: str, keys: PublicKeys, *, now: float) -> Receipt:
    """The receipt in a token, checked in the order of :class:`~serving.records.errors.Check`.

    Args:
        now: seconds since the epoch. A receipt does not expire; one from the future is refused.

    Raises:
        Rejected: the first check that fails.
    """
    statement = opened(token.strip(), keys, TYPE)
    receipt = _read(statement.payload)
    if receipt.iat > now + LEEWAY_S:
        raise Rejected(Check.TIME, "it is from the future")
    require_signed_in_time(statement.key, receipt.iat)
    return receipt


def _object(members: Mapping[str, Rule]) -> Rule:
    return lambda value: isinstance(value, dict) and _wrong(value, members) is None


def _wrong(value: Mapping[str, object], members: Mapping[str, Rule]) -> str | None:
    """A member that is missing, too many, or not what it should be."""
    if value.keys() != members.keys():
        return sorted(value.keys() ^ members.keys())[0]
    return next((member for member, right in members.items() if not right(value[member])), None)


_MEMBERS: Mapping[str, Rule] = {
    "id": matching(ID.pattern),
    "iat": count,
    "country": matching(r"[a-z]{2}"),
    **dict.fromkeys(("request", "site", "node", "organisation", "model"), name),
    **dict.fromkeys(("model_digest", "policy_digest"), content_digest),
    "usage": _object(dict.fromkeys(("prompt_tokens", "completion_tokens", "cached_tokens"), count)),
    "outcome": matching("|".join(Outcome)),
    "audit": _object({"seq": count, "prev": line_hash}),
}


def _read(payload: dict[str, object]) -> Receipt:
    if (member := _wrong(payload, _MEMBERS)) is not None:
        known = member in _MEMBERS
        raise Rejected(Check.CONTENT, f"its {member} is not a receipt's" if known else "it has other members")
    usage, audit = payload["usage"], payload["audit"]
    assert isinstance(usage, dict)
    assert isinstance(audit, dict)
    said = {**payload, "usage": Usage(**usage), "audit": Written(**audit), "outcome": Outcome(str(payload["outcome"]))}
    return Receipt(**said)  # type: ignore[arg-type] # _MEMBERS says what each is
