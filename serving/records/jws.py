"""Signed statements: JWS in compact form (RFC 7515) with Ed25519 (RFC 8037), and nothing else of JOSE.

A header has ``alg``, ``typ`` and ``kid`` and no more, so that there is nothing to be confused by: no key or address of
one inside the token (``jwk``, ``jku``, ``x5u``), no ``crit``, no other algorithm, no use of one kind as another.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from serving.records.encoding import from_base64url, json_object, to_base64url
from serving.records.errors import Check, Rejected
from serving.records.jwks import PublicKey, PublicKeys
from serving.records.signing import Signer

ALGORITHM = "EdDSA"
LONGEST = 8192
_MEMBERS = frozenset({"alg", "typ", "kid"})


@dataclass(frozen=True, slots=True)
class Opened:
    """A statement whose signature holds, and the key that made it."""

    payload: dict[str, object]
    key: PublicKey


def seal(signer: Signer, typ: str, payload: dict[str, object]) -> str:
    """``header.payload.signature``. Raises :class:`~serving.records.errors.CustodyError`."""
    header = orjson.dumps({"alg": ALGORITHM, "typ": typ, "kid": signer.kid})
    signed = to_base64url(header) + b"." + to_base64url(orjson.dumps(payload))
    return (signed + b"." + to_base64url(signer.sign(signed))).decode()


def opened(token: str, keys: PublicKeys, typ: str) -> Opened:
    """What the token states, signed by one of ``keys`` as ``typ``.

    Raises:
        Rejected: for the first check that fails, down to the signature; then for a payload that is no JSON object.
    """
    header, payload, signature, signed = _parts(token)
    if header.get("alg") != ALGORITHM:
        raise Rejected(Check.ALGORITHM, f"it is not {ALGORITHM}")
    if header.get("typ") != typ:
        raise Rejected(Check.TYPE, f"it is not {typ}")
    if header.keys() != _MEMBERS:
        raise Rejected(Check.HEADER, "it has other members than alg, typ and kid, or lacks kid")
    kid = header["kid"]
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        raise Rejected(Check.KEY, "none of the given keys has its kid")
    if not key.verifies(signature, signed):
        raise Rejected(Check.SIGNATURE, f"key {key.kid} did not sign this")
    try:
        return Opened(json_object(payload), key)
    except ValueError as error:
        raise Rejected(Check.CONTENT, str(error)) from None


def require_signed_in_time(key: PublicKey, seconds: float) -> None:
    """Raises :class:`Rejected` for a statement that dates itself after its key's end."""
    if key.ends is not None and seconds > key.ends:
        raise Rejected(Check.TIME, f"key {key.kid} was retired before")


def _parts(token: str) -> tuple[dict[str, object], bytes, bytes, bytes]:
    if len(token) > LONGEST:
        raise Rejected(Check.FORM, f"it is longer than {LONGEST} characters")
    try:
        header, payload, signature = (from_base64url(part) for part in token.encode("ascii").split(b"."))
        return json_object(header), payload, signature, token.rpartition(".")[0].encode()
    except ValueError:
        raise Rejected(Check.FORM, "it is not three parts of base64url, the first a JSON object") from None
