"""A country's own ground: the folder with its secrets and its store, and nothing of any other country."""

from __future__ import annotations

import secrets
from pathlib import Path

from tenants.keyring import Keyring
from tenants.private import NotPrivate, create_private, read_private
from tenants.sqlite_store import SqliteStore

SECRET_BYTES = 32


class GroundError(Exception):
    """The country's folder, or a secret in it, cannot be used safely."""


class CountryGround:
    """What one country keeps on disk. Everything is made when it is first asked for.

    Several processes may ask at once: the first to finish decides and the others read what it made.
    Raises :class:`GroundError` for secrets that others could read, and for those of a wrong size.
    """

    def __init__(self, directory: Path, code: str) -> None:
        self.directory = directory
        self.code = code

    @property
    def store_path(self) -> Path:
        """Where the store is, once it has been made."""
        return self.directory / "tenants.sqlite"

    def pepper(self) -> bytes:
        """Key of the digests in the store: without it a stolen store opens nothing."""
        return self._secret("pepper")

    def cell_key(self) -> bytes:
        """Key that the country's gateway signs claims with and its replicas check them with."""
        return self._secret("cell.key")

    def store(self) -> SqliteStore:
        """A new connection to the organisations and keys. The caller closes it."""
        self._make_directory()
        return SqliteStore.open(self.store_path, self.code)

    def keyring(self) -> Keyring:
        """A keyring with a connection of its own, for as long as the process lives."""
        pepper = self.pepper()
        return Keyring(self.store(), pepper, self.code)

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise GroundError(f"cannot make {self.directory}: {error.strerror}") from error

    def _secret(self, name: str) -> bytes:
        path = self.directory / name
        try:
            if not path.exists():
                self._make_directory()
                create_private(path, secrets.token_bytes(SECRET_BYTES))
            secret = read_private(path)
        except NotPrivate as error:
            raise GroundError(str(error)) from error
        except OSError as error:
            raise GroundError(f"cannot use {path}: {error.strerror}") from error
        if len(secret) != SECRET_BYTES:
            raise GroundError(f"{path} should hold {SECRET_BYTES} bytes")
        return secret
