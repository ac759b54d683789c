"""The public halves of a country's signing keys, as a JWK set: RFC 7517, RFC 8037 (Ed25519), RFC 7638 (thumbprints).

A retired key carries ``exp``, seconds since the epoch, as historical keys do in OpenID Federation 1.0 (section 8.7):
nothing that it signed later is believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from serving.records.encoding import from_base64url, json_object, to_base64url

KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One Ed25519 key that signatures are checked with."""

    key: Ed25519PublicKey
    kid: str
    ends: int | None = None
    """Seconds since the epoch after which it signed nothing; ``None`` for the current key."""

    @classmethod
    def of(cls, key: Ed25519PublicKey, ends: int | None = None) -> Self:
        return cls(key, thumbprint(key.public_bytes_raw()), ends)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def document(self) -> dict[str, object]:
        """The key as a JWK."""
        x = to_base64url(self.key.public_bytes_raw()).decode()
        jwk: dict[str, object] = {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid, "alg": "EdDSA", "use": "sig"}
        return jwk if self.ends is None else {**jwk, "exp": self.ends}


class PublicKeys:
    """Keys by their id. The first of two with one id counts."""

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        self._keys: dict[str, PublicKey] = {}
        for key in keys:
            self._keys.setdefault(key.kid, key)

    def __iter__(self) -> Iterator[PublicKey]:
        return iter(self._keys.values())

    def get(self, kid: str) -> PublicKey | None:
        return self._keys.get(kid)

    def document(self) -> dict[str, object]:
        """The JWK set, as it stands at ``/.well-known/jwks.json``."""
        return {"keys": [key.document() for key in self]}

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """The Ed25519 signature keys of a JWK set. Keys of other kinds are left out, as RFC 7517 asks.

        Raises:
            ValueError: no JWK set, one with a private key, a kid that is no thumbprint, two keys with one kid.
        """
        entries = json_object(raw).get("keys")
        if not isinstance(entries, list):
            raise ValueError("not a JWK set: it has no list of keys")
        keys = [read_key(entry) for entry in entries if _usable(entry)]
        if len({key.kid for key in keys}) < len(keys):
            raise ValueError("two keys of the set have the same kid")
        return cls(keys)


def read_key(entry: dict[str, object]) -> PublicKey:
    """A JWK of kind OKP with curve Ed25519. Raises ``ValueError``."""
    x, kid, ends = entry.get("x"), entry.get("kid"), entry.get("exp")
    if "d" in entry:
        raise ValueError("a private key stands among the public ones: it is to be replaced at once")
    raw = from_base64url(x.encode()) if isinstance(x, str) else b""
    if len(raw) != KEY_BYTES:
        raise ValueError(f"a key whose x is not {KEY_BYTES} bytes of base64url")
    if kid != thumbprint(raw):
        raise ValueError("a key whose kid is not its thumbprint (RFC 7638)")
    if ends is not None and type(ends) is not int:
        raise ValueError("a key whose exp is not a whole number of seconds")
    return PublicKey(Ed25519PublicKey.from_public_bytes(raw), kid, ends)


def thumbprint(raw: bytes) -> str:
    """RFC 7638: the hash of the members that make the key, in the order of their names."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": to_base64url(raw).decode()}
    return to_base64url(sha256(orjson.dumps(members)).digest()).decode()


def _usable(entry: object) -> bool:
    if not isinstance(entry, dict):
        raise ValueError("not a JWK set: a key is no object")
    kind = (entry.get("kty"), entry.get("crv"))
    return kind == ("OKP", "Ed25519") and entry.get("alg", "EdDSA") == "EdDSA" and entry.get("use", "sig") == "sig"
