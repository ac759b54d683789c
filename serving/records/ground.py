"""Where a country's records and signing keys are: on its own ground, beside its store."""

from __future__ import annotations

from pathlib import Path

from serving.records.audit import AuditLog
from serving.records.recorder import Recorder
from serving.records.signing import KeyFolder
from serving.records.sqlite_receipts import SqliteReceipts


class RecordsGround:
    """Paths, and what is opened there. Each call opens anew; everything raises ``RecordsUnavailable``."""

    def __init__(self, directory: Path, country: str) -> None:
        """
        Args:
            directory: the country's folder, which :meth:`serving.settings.Settings.country` names.
        """
        self.country = country
        self.audit_directory = directory / "records" / "audit"
        self._receipts = directory / "records" / "receipts.sqlite"
        self._signing = directory / "signing"

    def keys(self) -> KeyFolder:
        return KeyFolder(self._signing)

    def audit(self) -> AuditLog:
        return AuditLog(self.audit_directory, self.country, self.keys())

    def receipts(self) -> SqliteReceipts:
        return SqliteReceipts.open(self._receipts, self.country)

    def recorder(self) -> Recorder:
        """The country's background writer. Whoever starts it closes it."""
        return Recorder(self.audit(), self.keys(), self.receipts())
