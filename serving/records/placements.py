"""Where a country's replicas are, as a gateway's table comes to know it: who is there now, and who is there no more."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from serving.placement import Replica
from serving.records.errors import RecordsUnavailable
from serving.records.journal import Journal
from serving.records.record import Kind, Record

log = logging.getLogger(__name__)


class Placements:
    """Hears of every change of the table, in whatever thread makes it."""

    def __init__(self, journal: Journal, site: str) -> None:
        self._journal = journal
        self._site = site

    def __call__(self, former: Sequence[Replica], now: Sequence[Replica]) -> None:
        before, after = {one.id: one for one in former}, {one.id: one for one in now}
        for id, replica in after.items():
            if id not in before:
                self._note("joined", replica)
        for id, replica in before.items():
            if id not in after:
                self._note("left", replica)

    def _note(self, action: str, replica: Replica) -> None:
        fields = {
            "action": action,
            "model": replica.model,
            "replica": replica.id,
            "model_digest": replica.model_digest,
            "node": replica.node,
            "site": self._site,
        }
        try:
            self._journal.note(Record(Kind.PLACEMENT, fields))
        except RecordsUnavailable as error:
            # Serve's own thread must go on; a gateway that cannot record lets no request in.
            log.error("%s of replica %s is not recorded: %s", action, replica.id, error)
