"""Custody of a country's signing key, behind a port.

:class:`KeyFolder` keeps the key in a folder of the country's own ground. A PKCS#11 token or a KMS within the country
would be other implementations of :class:`KeyRing`, whose signers hand the bytes to the device: nothing here
asks for a private key.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from serving.records.encoding import json_object
from serving.records.errors import CustodyError
from serving.records.files import locked, make_private, replace, sync
from serving.records.jwks import PublicKey, PublicKeys, read_key
from tenants.private import NotPrivate, create_private, read_private

CURRENT = "current.pem"
NOTICE_S = 60
"""How long a retired key may still be used: every process looks at the folder before each batch."""


class Signer(Protocol):
    """Signs with one Ed25519 key (RFC 8032)."""

    @property
    def kid(self) -> str:
        """The key's thumbprint (RFC 7638)."""

    def sign(self, message: bytes) -> bytes:
        """64 bytes. Raises :class:`CustodyError`."""


class KeyRing(Protocol):
    """A country's signing keys: one that signs, and all that ever did."""

    def current(self) -> Signer:
        """The key to sign with now; ask again for each batch. Raises :class:`CustodyError`."""

    def public(self) -> PublicKeys:
        """What the country's signatures are checked with, old ones too. Raises :class:`CustodyError`."""


class FileSigner:
    """A :class:`Signer` that holds its key in memory."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey.of(key.public_key())

    @property
    def kid(self) -> str:
        return self.public.kid

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


class KeyFolder:
    """A :class:`KeyRing` in a folder of mode 0700: ``current.pem`` (PKCS #8), a JWK for each retired key, all 0600."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / CURRENT
        self._loaded: tuple[tuple[int, int, int], FileSigner] | None = None

    def current(self) -> FileSigner:
        """The key, made when it is first asked for. Of several processes that make it at once, one decides."""
        with self._translated():
            if not self._path.exists():
                self._create()
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
            if self._loaded is None or self._loaded[0] != seen:
                self._require_private()
                self._loaded = seen, _signer(self._path)
            return self._loaded[1]

    def public(self) -> PublicKeys:
        """Makes no key: a folder that is not there has none."""
        with self._translated():
            # The current key first: one that is retired meanwhile is then met twice rather than never.
            keys = [self.current().public] if self._path.exists() else []
            retired = (json_object(read_private(path)) for path in sorted(self._directory.glob("retired-*.jwk")))
            return PublicKeys([*keys, *(read_key(entry) for entry in retired)])

    def rotate(self, now: float) -> FileSigner:
        """Let a new key sign from ``now`` on, in seconds since the epoch; what the old one signed still verifies.

        Nothing keeps the old one's private half.
        """
        self.current()
        with self._translated(), locked(self._directory):
            old = self.current().public
            retired = PublicKey(old.key, old.kid, int(now) + NOTICE_S).document()
            replace(self._directory / f"retired-{old.kid}.jwk", orjson.dumps(retired) + b"\n")
            sync(self._directory)
            replace(self._path, _new_pem())
            sync(self._directory)
            return self.current()

    def _create(self) -> None:
        make_private(self._directory)
        self._require_private()
        create_private(self._path, _new_pem())

    def _require_private(self) -> None:
        status = self._directory.stat()
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise CustodyError(f"others may use {self._directory}: make it private with chmod 700")
        if status.st_uid not in {0, os.geteuid()}:
            raise CustodyError(f"{self._directory} belongs to another user")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except NotPrivate as error:
            raise CustodyError(str(error)) from error
        except OSError as error:
            raise CustodyError(f"cannot use {self._directory}: {error.strerror}") from error
        except ValueError as error:
            raise CustodyError(f"a retired key in {self._directory} cannot be read: {error}") from error


def _signer(path: Path) -> FileSigner:
    pem = read_private(path)
    key = None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise CustodyError(f"{path} should hold an Ed25519 key as unencrypted PKCS #8 PEM")
    return FileSigner(key)


def _new_pem() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
