"""API keys: how they look, how they are made, and whose they are.

``sk-<country>-<id>-<secret>-<check>``, letters and digits of base 62. The id finds the record, the secret's
43 digits carry 256 bits, and the check is a CRC-32 that catches slips and lets scanners for leaked secrets
avoid false alarms (the idea is GitHub's: https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/).
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
from binascii import crc32
from collections.abc import Hashable
from datetime import datetime
from typing import NamedTuple

from tenants.organisation import KeyRecord, Organisation
from tenants.store import NotFound, Store

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH = 12
SECRET_LENGTH = 43
CHECK_LENGTH = 6

_SHAPE = re.compile(
    rf"sk-([a-z]{{2}})-([0-9A-Za-z]{{{ID_LENGTH}}})-[0-9A-Za-z]{{{SECRET_LENGTH}}}-([0-9A-Za-z]{{{CHECK_LENGTH}}})"
)
_LENGTH = len("sk-cc---") + ID_LENGTH + SECRET_LENGTH + CHECK_LENGTH
_PAIRS = [tens + ones for tens in ALPHABET for ones in ALPHABET]
_NOBODY = bytes(32)


class ParsedKey(NamedTuple):
    """What a well-formed key says of itself, before anybody has vouched for it."""

    country: str
    key_id: str


class Identified(NamedTuple):
    """Whose key it is."""

    organisation: Organisation
    key: KeyRecord


def parse(token: str) -> ParsedKey | None:
    """Read a key's country and id, or ``None`` if it is no key of ours. Never raises; cheap for any input."""
    if len(token) != _LENGTH or (match := _SHAPE.fullmatch(token)) is None:
        return None
    country, key_id, check = match.groups()
    return ParsedKey(country, key_id) if check == _check(token[: -CHECK_LENGTH - 1]) else None


def mint(
    *, country: str, organisation: str, pepper: bytes, now: datetime, expires: datetime | None = None
) -> tuple[str, KeyRecord]:
    """Make a key: the token, to be shown once and kept nowhere, and the record to store."""
    key_id = _random(ID_LENGTH)
    body = f"sk-{country}-{key_id}-{_random(SECRET_LENGTH)}"
    token = f"{body}-{_check(body)}"
    return token, KeyRecord(key_id, country, organisation, digest(pepper, token), created=now, expires=expires)


def digest(pepper: bytes, token: str) -> bytes:
    """HMAC-SHA256 of a token: what the store keeps, worthless without the pepper."""
    return hmac.digest(pepper, token.encode("ascii"), "sha256")


class Keyring:
    """Tells whose key a token is, within one country.

    Records are remembered until anybody, in any process, commits to the store.
    """

    def __init__(self, store: Store, pepper: bytes, country: str) -> None:
        if store.country != country:
            raise ValueError(f"a keyring of {country} cannot read the store of {store.country}")
        self._store = store
        self._pepper = pepper
        self._country = country
        self._version: Hashable = None
        self._known: dict[str, Identified] = {}

    def identify(self, token: str, now: datetime) -> Identified | None:
        """The key's owner, or ``None``: unknown, revoked, expired, foreign and malformed keys look alike."""
        parsed = parse(token)
        if parsed is None or parsed.country != self._country:
            return None
        found = self._find(parsed.key_id)
        # Also compared when there is no such key, so that the time taken does not say which ids exist.
        expected = _NOBODY if found is None else found.key.digest
        genuine = hmac.compare_digest(digest(self._pepper, token), expected)
        if found is None or not genuine or not found.key.valid(now):
            return None
        return found

    def _find(self, key_id: str) -> Identified | None:
        if (version := self._store.version()) != self._version:
            self._known.clear()
            self._version = version
        if (known := self._known.get(key_id)) is not None:
            return known
        try:
            key = self._store.key(key_id)
            found = Identified(self._store.organisation(key.organisation), key)
        except NotFound:
            # Not remembered: guesses would fill the memory.
            return None
        self._known[key_id] = found
        return found


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _check(body: str) -> str:
    upper, low = divmod(crc32(body.encode("ascii")), len(_PAIRS))
    high, middle = divmod(upper, len(_PAIRS))
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]
