"""The one door to a country's records. Without a country there is nowhere to write (R6).

A process opens one journal for each country that it works for: a gateway and a replica the only one there is, the
command line that of the country it was told. What a journal gives out is that country's and knows no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from serving.records.errors import RecordsUnavailable
from serving.records.ground import RecordsGround
from serving.records.receipts import Answered
from serving.records.record import Record
from serving.records.recorder import Recorder
from serving.records.sqlite_receipts import SqliteReceipts
from serving.records.telemetry.telemetry import Service, Telemetry
from serving.settings import Settings
from tenants.country import Country

CLOSE_S = 10.0
"""How long a process that ends waits for what it has noted to be on disk."""


class Journal:
    """A country's records, as one process reads and writes them. Everything raises :class:`RecordsUnavailable`."""

    def __init__(self, country: Country, ground: RecordsGround) -> None:
        """Use :meth:`for_country`."""
        self.country = country.code
        self._described = country
        self.policy_digest = country.policy_digest
        self.ground = ground
        self._recorder: Recorder | None = None
        self._receipts: SqliteReceipts | None = None

    @classmethod
    def for_country(cls, country: Country, settings: Settings) -> Self:
        """The country's journal. Touches no file: what is needed is opened when it is."""
        return cls(country, RecordsGround(settings.country(country.code), country.code))

    def start(self) -> Self:
        """Begin to write in the background. Whoever serves does this first, and serves nothing where it fails."""
        self._recorder = self.ground.recorder()
        self._receipts = self.ground.receipts()
        return self

    @property
    def healthy(self) -> bool:
        """Whether what happens now would be recorded."""
        return self._recorder is not None and self._recorder.healthy

    @property
    def waiting(self) -> int:
        """How many entries were noted and are not on disk yet."""
        return 0 if self._recorder is None else self._recorder.waiting

    def telemetry(self, service: Service, site: str) -> Telemetry:
        """What this process tells the country's collector and Prometheus. The caller closes it.

        Raises:
            OSError: the authority of the country's collector cannot be read.
        """
        return Telemetry.open(self._described, service, site)

    def note(self, entry: Record | Answered) -> None:
        """Record this in the background, in microseconds. Raises ``ValueError`` for what no record may hold."""
        if self._recorder is None:
            raise RecordsUnavailable("the journal was not started")
        self._recorder.note(entry)

    def append(self, records: Sequence[Record]) -> None:
        """Record these at once, on this thread: for commands. They are on disk when this returns."""
        self.ground.audit().append(records)

    def receipt(self, id: str, organisation: str) -> str:
        """The signed receipt. Raises :class:`~serving.records.receipt_store.ReceiptNotFound`, also for another's."""
        if self._receipts is None:
            self._receipts = self.ground.receipts()
        return self._receipts.get(id, organisation).token

    def jwks(self) -> dict[str, object]:
        """The JWK set that this country's signatures are checked with, retired keys among them."""
        return self.ground.keys().public().document()

    def close(self, timeout_s: float = CLOSE_S) -> bool:
        """Write what was noted, and let go. ``False`` when something could not be written by then."""
        recorder, self._recorder = self._recorder, None
        receipts, self._receipts = self._receipts, None
        written = recorder is None or recorder.close(timeout_s)
        if receipts is not None:
            receipts.close()
        return written

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
