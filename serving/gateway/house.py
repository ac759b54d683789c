"""Puts a country's gateway together, without Ray: the deployment and the tests start the same one."""

from __future__ import annotations

from collections.abc import Mapping

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
    country: Country, settings: Settings, addresses: Mapping[str, str], table: Table, journal: Journal, site: str
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
        record=Recording(journal, relay, site),
        authenticate=Authenticator(country, ground.keyring(), addresses),
        residency=Residency(country),
        relay=relay,
        resume=Resume(relay, country.code),
    )


class Gateway:
    """A country's public listener, and its records, which begin before it and end after it."""

    def __init__(
        self,
        country: Country,
        settings: Settings,
        addresses: Mapping[str, str],
        table: Table,
        place: str,
        limits: ListenerLimits = DEFAULT_LIMITS,
    ) -> None:
        """
        Args:
            place: a short name of where this gateway stands.

        Raises:
            RecordsUnavailable: nothing could be recorded, so nothing is served.
        """
        messages.load()
        site = f"{country.code}-{place}"
        tls = country.gateway.tls
        self.journal = Journal.for_country(country, settings).start()
        self._house = house(country, settings, addresses, table, self.journal, site)
        table.watch(Placements(self.journal, site))
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
        await self.listener.start()

    async def stop(self, grace_s: float = 0.0) -> bool:
        """Let requests finish for up to ``grace_s``, then leave no record unwritten. ``False`` where one was lost."""
        await self.listener.stop(grace_s)
        await self._house.record.drain()
        # On this thread: nobody is served any more, and a process that exits starts no other.
        return self.journal.close()


def _problem_in(country: Country, site: str, record: Recording) -> Problem:
    """What the listener itself refuses, in the caller's language as far as its headers were read."""

    def told(reason: Reason, headers: Mapping[bytes, bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        id, refusal = new_request_id(), Refused(reason)
        record.refused(id, refusal)
        answer = problem(refusal, language_of(headers, country), id)
        return answer.status, [*answer.headers, *signature(country, site)], answer.body

    return told
