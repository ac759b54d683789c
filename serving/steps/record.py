"""What becomes of a request is in the country's records, whichever way it ends: answered, cut off or refused (R6, R10).

An answer has one record and one receipt, whose id is made before its first byte. A refusal has a record. Nothing is
done here for a token: a request is noted once, when it has ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

from serving.errors import DomicileError, Failed, Reason
from serving.records.errors import RecordsUnavailable
from serving.records.journal import Journal
from serving.records.receipts import Answered, Outcome, new_receipt_id
from serving.records.record import Value
from serving.records.refusals import Refusals
from serving.records.telemetry.schema import UNKNOWN
from serving.records.telemetry.visit import End, Visit, Visits
from serving.replicas.continuation import Told
from serving.replicas.errand import Errand
from serving.types import Caller, Endpoint, Usage

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5
"""A disk that was full is rarely empty sooner."""

_UNKNOWN = Usage(0, 0, 0)
_RULES = {
    Reason.NO_KEY: "authenticate",
    Reason.INVALID_API_KEY: "authenticate",
    Reason.INCORRECT_HOSTNAME: "r3",
    Reason.DATA_RESIDENCY_MISMATCH: "r3",
    Reason.FOREIGN_NODE_IN_CELL: "r2",
    Reason.COUNTRY_UNAVAILABLE: "r5",
    Reason.RECORDS_UNAVAILABLE: "r10",
    Reason.MODEL_NOT_FOUND: "grant",
    Reason.RESPONSE_NOT_FOUND: "grant",
    Reason.RECEIPT_NOT_FOUND: "grant",
    Reason.RATE_LIMIT_EXCEEDED: "share",
    Reason.SERVER_IS_OVERLOADED: "overload",
    Reason.STREAM_INTERRUPTED: "overload",
    Reason.INTERNAL_ERROR: "internal",
    Reason.MALFORMED_HTTP: "http",
    Reason.INVALID_HOST: "http",
    Reason.UNKNOWN_PATH: "http",
    Reason.METHOD_NOT_ALLOWED: "http",
    Reason.UNSUPPORTED_MEDIA_TYPE: "http",
    Reason.UNSUPPORTED_ENCODING: "http",
    Reason.BODY_TOO_LARGE: "http",
    Reason.HEADERS_TOO_LARGE: "http",
    Reason.REQUEST_TIMEOUT: "http",
}
"""Which rule refuses for a reason; the residency rules by their number. All others are found in a body."""


class Asked(Protocol):
    """What a record needs to know of a request."""

    @property
    def id(self) -> str: ...

    @property
    def endpoint(self) -> Endpoint: ...

    @property
    def gone(self) -> bool:
        """Whether its client has left."""


class Counts(Protocol):
    """Who can ask a replica what an answer has cost: :class:`serving.steps.relay.Relay`."""

    async def usage(self, errand: Errand) -> Usage | None: ...


class Entry:
    """One request's page, filled in as it goes."""

    def __init__(self, asked: Asked, visit: Visit) -> None:
        self.asked = asked
        self.visit = visit
        """Hears of the same, for the metrics and the trace."""
        self.receipt = new_receipt_id(time.time_ns() // 1_000_000)
        self.caller: Caller | None = None
        self.errand: Errand | None = None
        self.answering = False
        """Something of an answer has gone out, or is about to."""
        self.usage: Usage | None = None
        """As the engine told it with the answer's end."""
        self.error: DomicileError | None = None
        """What the client was told at the end of an answer that was not whole."""
        self.told: Told | None = None
        """What the client has got of a stream, where that is kept."""
        self._begun = time.perf_counter()

    def called(self, caller: Caller) -> Caller:
        """Whose request it is."""
        self.caller = caller
        return caller

    def sent(self, errand: Errand) -> Errand:
        """Who is asked for the answer; the replicas add themselves to it."""
        self.errand = errand
        return errand

    def outcome(self, error: BaseException | None) -> Outcome:
        """How the answer ended, where ``error`` ended it."""
        if error is not None and self.asked.gone:
            return Outcome.CLIENT_LEFT
        if isinstance(error, asyncio.CancelledError):
            return Outcome.INTERRUPTED
        cut = error or self.error
        if cut is None:
            return Outcome.COMPLETED
        ours = isinstance(cut, Failed) and cut.reason is not Reason.INTERNAL_ERROR
        return Outcome.INTERRUPTED if ours else Outcome.FAILED

    @property
    def duration_ms(self) -> int:
        return int((time.perf_counter() - self._begun) * 1000)


class Recording:
    """Notes the requests of one gateway in its country's journal."""

    def __init__(self, journal: Journal, visits: Visits, counts: Counts, site: str) -> None:
        """
        Args:
            visits: where the metrics are kept.
            site: where this gateway stands, as ``x-domicile-site`` has it.
        """
        self.journal = journal
        self.refusals = Refusals(journal.note)
        self._visits = visits
        self._counts = counts
        self._site = site
        self._asking: set[asyncio.Task[None]] = set()

    @contextmanager
    def __call__(self, asked: Asked) -> Iterator[Entry]:
        """Note what becomes of a request.

        Raises:
            Failed: it could not be recorded, so it is not let in.
        """
        entry = Entry(asked, self._visits.begin(asked.endpoint, asked.id))
        try:
            if not self.journal.healthy:
                country = self.journal.country.upper()
                raise Failed(Reason.RECORDS_UNAVAILABLE, retry_after_s=RETRY_AFTER_S, country=country)
            yield entry
        except BaseException as error:
            self._ended(entry, error)
            raise
        self._ended(entry, None)

    def refused(self, request: str, error: DomicileError, entry: Entry | None = None) -> None:
        """Note a refusal, of a request that never came to an entry as well."""
        known: dict[str, Value] = {"site": self._site, "status": error.reason.wire.status}
        if entry is not None:
            known |= {"endpoint": _word(entry.asked.endpoint), "duration_ms": entry.duration_ms}
            if entry.caller is not None:
                known |= {"organisation": entry.caller.organisation, "key": entry.caller.key_id}
        rule = _RULES.get(error.reason, "validate")
        caller = entry.caller if entry is not None else None
        self._visits.refused(error.reason, rule, caller.service_class.value if caller is not None else UNKNOWN)
        self.refusals.note(request, rule, error.reason.key, **known)

    async def drain(self) -> None:
        """Wait for what is still being found out, then tell what was only counted."""
        await asyncio.gather(*self._asking, return_exceptions=True)
        self.refusals.settle()

    def _ended(self, entry: Entry, error: BaseException | None) -> None:
        errand = entry.errand
        prompt = errand.prompt if errand is not None else None
        entry.visit.end(End(entry.caller, prompt, entry.usage, error or entry.error, left=entry.asked.gone))
        served = errand is not None and errand.at is not None
        if entry.answering or (served and entry.asked.gone):
            self._answered(entry, entry.outcome(error))
        elif isinstance(error, DomicileError):
            self.refused(entry.asked.id, error, entry)
        elif error is not None and not entry.asked.gone:
            self.refused(entry.asked.id, Failed(Reason.INTERNAL_ERROR), entry)

    def _answered(self, entry: Entry, outcome: Outcome) -> None:
        answered = self._page(entry, outcome)
        if entry.usage is not None:
            self._note(entry, answered)
            return
        task = asyncio.get_running_loop().create_task(self._find_out(entry, answered))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _find_out(self, entry: Entry, answered: Answered) -> None:
        """Of an answer that was cut, only its replica's engine knows what it cost."""
        assert entry.errand is not None
        usage = None
        try:
            usage = await self._counts.usage(entry.errand)
        finally:
            # Where that engine is gone too, what went out is what is known.
            pieces = entry.told.pieces if entry.told is not None else 0
            self._note(entry, replace(answered, usage=usage or Usage(0, pieces, 0)))

    def _page(self, entry: Entry, outcome: Outcome) -> Answered:
        assert entry.errand is not None
        errand, replica = entry.errand, entry.errand.at
        assert replica is not None
        return Answered(
            receipt=entry.receipt,
            request=entry.asked.id,
            organisation=errand.caller.organisation,
            site=self._site,
            node=replica.node,
            model=errand.prompt.model,
            model_digest=replica.model_digest,
            policy_digest=self.journal.policy_digest,
            outcome=outcome,
            usage=entry.usage or _UNKNOWN,
            key=errand.caller.key_id,
            endpoint=_word(entry.asked.endpoint),
            duration_ms=entry.duration_ms,
        )

    def _note(self, entry: Entry, answered: Answered) -> None:
        entry.visit.receipt(answered.usage)
        try:
            self.journal.note(answered)
        except RecordsUnavailable as error:
            # There is room for all that is let in, so this is a journal that was closed too early.
            log.error("receipt %s is lost: %s", answered.receipt, error)


def _word(endpoint: Endpoint) -> str:
    return endpoint.name.lower()
