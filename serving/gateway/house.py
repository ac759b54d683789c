"""Puts a country's gateway together, without Ray: the deployment and the tests start the same one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial

from serving.chat import House
from serving.errors import Reason, Refused
from serving.gateway import messages
from serving.gateway.door import Door, signature
from serving.gateway.problems import problem
from serving.gateway.request import language_of, new_request_id
from serving.http.listener import Listener, Problem
from serving.http.protocol import DEFAULT_LIMITS, ListenerLimits
from serving.records.journal import Journal
from serving.records.placements import Placements
from serving.records.telemetry import metrics
from serving.records.telemetry.instruments import Instruments
from serving.records.telemetry.listener import LOOPBACK, private
from serving.records.telemetry.metrics import Labels
from serving.records.telemetry.visit import Visits
from serving.replicas.cell import Cell
from serving.replicas.claim import CellKey
from serving.replicas.table import Table
from serving.replicas.upstream import Upstream
from serving.settings import Settings
from serving.steps.authenticate import Authenticator
from serving.steps.choose import Chooser
from serving.steps.record import Recording
from serving.steps.relay import Relay
from serving.steps.residency import Residency
from serving.steps.resume import Resume
from tenants.country import Country
from tenants.ground import CountryGround


def house(
    country: Country,
    settings: Settings,
    addresses: Mapping[str, str],
    table: Table,
    journal: Journal,
    visits: Visits,
    site: str,
    cell: Cell,
) -> House:
    """The steps of one country, on its own ground."""
    ground = CountryGround(settings.country(country.code), country.code)
    relay = Relay(
        choose=Chooser(country.code, table),
        table=table,
        upstream=Upstream(),
        key=CellKey(ground.cell_key()),
        country=country.code,
    )
    return House(
        record=Recording(journal, visits, relay, site),
        authenticate=Authenticator(country, ground.keyring(), addresses),
        residency=Residency(country, cell),
        relay=relay,
        resume=Resume(relay, country.code),
    )


class Gateway:
    """A country's public listener and its private one, and its records, which begin before them and end after them."""

    def __init__(
        self,
        country: Country,
        settings: Settings,
        addresses: Mapping[str, str],
        table: Table,
        place: str,
        limits: ListenerLimits = DEFAULT_LIMITS,
        cell: Cell | None = None,
        private_host: str = LOOPBACK,
    ) -> None:
        """
        Args:
            place: a short name of where this gateway stands.
            private_host: where Prometheus reads the metrics.

        Raises:
            RecordsUnavailable: nothing could be recorded, so nothing is served.
            OSError: the authority of the country's collector cannot be read.
        """
        messages.load()
        site = f"{country.code}-{place}"
        tls = country.gateway.tls
        self.journal = Journal.for_country(country, settings).start()
        self.telemetry = self.journal.telemetry("domicile-gateway", site)
        visits = Visits(self.telemetry)
        self._house = house(country, settings, addresses, table, self.journal, visits, site, cell or Cell())
        table.watch(Placements(self.journal, site))
        _watch(self.telemetry.instruments, self.journal, country, table)
        self._private = private_host, country.metrics_port
        self.listener = Listener(
            Door(country, self._house, table, site),
            host=country.gateway.host,
            port=country.port,
            tls=(str(tls.certificate), str(tls.key)) if tls else None,
            reuse_port=True,
            problem=_problem_in(country, site, self._house.record),
            limits=limits,
        )

    @property
    def port(self) -> int:
        return self.listener.port

    async def start(self) -> None:
        """Listen. Raises as :meth:`serving.http.listener.Listener.start` does."""
        self.metrics = await private(self.telemetry.page, *self._private)
        await self.listener.start()

    async def stop(self, grace_s: float = 0.0) -> bool:
        """Let requests finish for up to ``grace_s``, then leave no record unwritten. ``False`` where one was lost."""
        await self.listener.stop(grace_s)
        await self._house.record.drain()
        await self.metrics.stop()
        # On this thread: nobody is served any more, and a process that exits starts no other.
        self.telemetry.close()
        return self.journal.close()


def _problem_in(country: Country, site: str, record: Recording) -> Problem:
    """What the listener itself refuses, in the caller's language as far as its headers were read."""

    def told(reason: Reason, headers: Mapping[bytes, bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        id, refusal = new_request_id(), Refused(reason)
        record.refused(id, refusal)
        answer = problem(refusal, language_of(headers, country), id)
        return answer.status, [*answer.headers, *signature(country, site)], answer.body

    return told


def _watch(instruments: Instruments, journal: Journal, country: Country, table: Table) -> None:
    """Tell how the gateway's surroundings stand, whenever somebody reads it."""
    instruments.read(metrics.REPLICAS, partial(_replicas, country, table))
    instruments.read(metrics.AUDIT_WAITING, lambda: {(): float(journal.waiting)})
    instruments.read(metrics.AUDIT_HEALTHY, lambda: {(): float(journal.healthy)})


def _replicas(country: Country, table: Table) -> dict[Labels, float]:
    """How many there are of each model, by how they stand; none is a figure too."""
    found: Counter[Labels] = Counter()
    for model in country.models:
        found[model.id, "serving"] = 0
        for replica in table.replicas(model.id):
            found[model.id, "draining" if replica.draining else "serving" if replica.healthy else "unreachable"] += 1
    return {labels: float(count) for labels, count in found.items()}
