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
from serving.records.telemetry.instruments import Labels
from serving.records.telemetry.metrics import REPLICAS
from serving.records.telemetry.telemetry import Telemetry
from serving.records.telemetry.visit import Visits
from serving.replicas.cell import Cell
from serving.replicas.claim import CellKey
from serving.replicas.table import Table
from serving.replicas.upstream import Upstream
from serving.settings import Settings
from serving.steps.authenticate import Authenticator
from serving.steps.choose import Chooser
from serving.steps.relay import Relay
from serving.steps.residency import Residency
from serving.steps.resume import Resume
from tenants.country import Country
from tenants.ground import CountryGround


def house(country: Country, settings: Settings, addresses: Mapping[str, str], table: Table, cell: Cell) -> House:
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
        authenticate=Authenticator(country, ground.keyring(), addresses),
        residency=Residency(country, cell),
        relay=relay,
        resume=Resume(relay, country.code),
    )


def _problem_in(country: Country, site: str, visits: Visits) -> Problem:
    """What the listener itself refuses, in the caller's language as far as its headers were read."""

    def told(reason: Reason, headers: Mapping[bytes, bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        refused = Refused(reason)
        visits.refused(refused)
        answer = problem(refused, language_of(headers, country), new_request_id())
        return answer.status, [*answer.headers, *signature(country, site)], answer.body

    return told


def listener(
    country: Country,
    settings: Settings,
    addresses: Mapping[str, str],
    table: Table,
    site: str,
    telemetry: Telemetry,
    limits: ListenerLimits = DEFAULT_LIMITS,
    cell: Cell | None = None,
) -> Listener:
    """The country's public listener, not started yet."""
    messages.load()
    visits = Visits(telemetry)
    telemetry.instruments.read(REPLICAS, partial(_replicas, country, table))
    tls = country.gateway.tls
    return Listener(
        Door(country, house(country, settings, addresses, table, cell or Cell()), table, site, visits),
        host=country.gateway.host,
        port=country.port,
        tls=(str(tls.certificate), str(tls.key)) if tls else None,
        reuse_port=True,
        problem=_problem_in(country, site, visits),
        limits=limits,
    )


def _replicas(country: Country, table: Table) -> dict[Labels, float]:
    """How many there are of each model, by how they stand; none is a figure too."""
    found: Counter[Labels] = Counter()
    for model in country.models:
        found[model.id, "serving"] = 0
        for replica in table.replicas(model.id):
            found[model.id, "draining" if replica.draining else "serving" if replica.healthy else "unreachable"] += 1
    return {labels: float(count) for labels, count in found.items()}
