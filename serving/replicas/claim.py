"""The claim: what a gateway says of a request and a replica believes, because the country's cell key signed it.

``v1.<payload>.<mac>``: base64url of compact JSON, then HMAC-SHA256 over everything before the last dot
(RFC 2104). The algorithm is fixed by the version, so there is no header to lie in. A claim is good for one
path, one country and one use, and for seconds only.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256

import orjson

from serving.types import ServiceClass

HEADER = "x-domicile-claim"
LIFETIME_S = 30.0
LEEWAY_S = 5.0
"""How far ahead of ours the gateway's clock may be, the two being on different nodes."""
LONGEST = 4096
_VERSION = b"v1"


class ClaimRejected(Exception):
    """The claim does not entitle its bearer to anything here. ``reason`` says why, for the country's own audit."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Claim:
    """Who asks what of whom, until when. Times are seconds since the epoch."""

    country: str
    organisation: str
    request_id: str
    service_class: ServiceClass
    path: str
    deadline: float
    """When the whole answer has to be there."""
    expiry: float
    """When the claim itself stops being accepted."""
    weight: float = 1.0
    """The organisation's share of an engine that others want too, over theirs."""
    trace: str = ""
    """The ``traceparent`` to carry on (W3C Trace Context); empty where the request is not traced."""


class CellKey:
    """The country's cell key, and the purposes it is split into so that no use can serve as another."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 32:
            raise ValueError("a cell key has at least 32 bytes")
        self._claims = hmac.digest(secret, b"domicile/claim/v1", "sha256")
        self._salts = hmac.digest(secret, b"domicile/kv-salt/v1", "sha256")

    def sign(self, claim: Claim) -> str:
        fields = (
            claim.country,
            claim.organisation,
            claim.request_id,
            claim.service_class.value,
            claim.path,
            claim.deadline,
            claim.expiry,
            claim.weight,
            claim.trace,
        )
        signed = _VERSION + b"." + urlsafe_b64encode(orjson.dumps(fields))
        return (signed + b"." + self._mac(signed)).decode()

    def verify(self, token: str) -> Claim:
        """The claim inside a token that this key signed.

        Raises:
            ClaimRejected: for anything else. Country, path, expiry and reuse are the caller's to check.
        """
        signed, _, mac = token.encode("utf-8", "replace").rpartition(b".")
        # The texts are compared, not what they decode to: base64 has several spellings of the same bytes.
        genuine = len(token) <= LONGEST and hmac.compare_digest(mac, self._mac(signed))
        if not genuine or not signed.startswith(_VERSION + b"."):
            raise ClaimRejected("forged_claim")
        country, organisation, request_id, service_class, *rest = orjson.loads(
            urlsafe_b64decode(signed[len(_VERSION) + 1 :])
        )
        return Claim(country, organisation, request_id, ServiceClass(service_class), *rest)

    def _mac(self, signed: bytes) -> bytes:
        return urlsafe_b64encode(hmac.digest(self._claims, signed, "sha256"))

    def cache_salt(self, organisation: str) -> str:
        """The KV prefix-cache salt of an organisation, hex (R9): 64 characters of vLLM's 128."""
        return hmac.new(self._salts, organisation.encode(), sha256).hexdigest()


class Doorkeeper:
    """Checks claims for one country and lets each be used once."""

    def __init__(self, key: CellKey, country: str) -> None:
        self._key = key
        self._country = country
        self._used: dict[str, float] = {}
        self._swept = 0.0

    def admit(self, token: str | None, path: str, now: float) -> Claim:
        """
        Raises:
            ClaimRejected: missing, forged, foreign, for another path, expired, from the future or used before.
        """
        if not token:
            raise ClaimRejected("no_claim")
        claim = self._key.verify(token)
        if claim.country != self._country:
            raise ClaimRejected("foreign_claim")
        if claim.path != path:
            raise ClaimRejected("claim_for_another_path")
        if not now < claim.expiry <= now + LIFETIME_S + LEEWAY_S:
            raise ClaimRejected("expired_claim" if claim.expiry <= now else "claim_from_the_future")
        self._sweep(now)
        if claim.request_id in self._used:
            raise ClaimRejected("replayed_claim")
        self._used[claim.request_id] = claim.expiry
        return claim

    def _sweep(self, now: float) -> None:
        if now - self._swept < LIFETIME_S:
            return
        self._swept = now
        self._used = {request_id: expiry for request_id, expiry in self._used.items() if expiry > now}
