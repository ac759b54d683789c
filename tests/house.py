"""Countries in one process, without Ray: gateways and replicas on ports of the kernel's choosing, fakes for engines."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from openai import AsyncOpenAI

import tenants
from serving.engine.fake import FakeEngine
from serving.gateway.house import Gateway
from serving.http.listener import Listener
from serving.http.protocol import DEFAULT_LIMITS, ListenerLimits
from serving.placement import Replica
from serving.records.journal import Journal
from serving.records.jwks import PublicKeys
from serving.records.receipts import Receipt, verify
from serving.records.record import Kind
from serving.records.refusals import Refusals
from serving.records.tail import tail
from serving.records.telemetry.telemetry import Telemetry
from serving.replicas.cell import Cell
from serving.replicas.claim import CellKey
from serving.replicas.server import ReplicaServer
from serving.replicas.table import Table
from serving.settings import Settings
from tenants.country import Country, Model, Source
from tenants.country import Telemetry as Telling
from tenants.ground import CountryGround
from tenants.keyring import mint
from tenants.organisation import Organisation, Plan
from tenants.registry import load_country

MODEL = "fake"
DIGEST = "sha256:" + "fa" * 32
"""What all replicas here say that they serve."""
NAMED = "fake-named"
"""A model that only organisations with a grant by name may use."""
SHIPPED = Path(tenants.__file__).parent / "countries"


class _AnyPort(Country):
    """A country that listens wherever there is room."""

    @property
    def port(self) -> int:
        return 0

    @property
    def metrics_port(self) -> int:
        return 0


@dataclass
class Stand:
    """One replica: its engine, its listener, and what the country's table says of it."""

    engine: FakeEngine
    server: ReplicaServer
    replica: Replica
    telemetry: Telemetry

    async def vanish(self) -> None:
        """End as a process does that is killed: every connection breaks, nobody listens, nothing is said."""
        running = self.server._listener
        if running is None or running._acceptor is None:
            return
        self.server._listener = None
        running._acceptor.close()
        for connection in list(running._server.server_state.connections):
            connection.transport.abort()
        await running.stop()


@dataclass
class Land:
    """One country: its gateway's address, its replicas, its organisations' keys."""

    country: Country
    ground: CountryGround
    table: Table
    service: Gateway
    cell: Cell
    addresses: dict[str, str]
    stands: list[Stand] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    key_ids: dict[str, str] = field(default_factory=dict)

    @property
    def gateway(self) -> Listener:
        """The public listener."""
        return self.service.listener

    @property
    def metrics(self) -> Listener:
        """The private one."""
        return self.service.metrics

    @property
    def journal(self) -> Journal:
        """The gateway's."""
        return self.service.journal

    async def records(self, kind: Kind) -> list[dict[str, Any]]:
        """What the country's audit log holds of a kind, once everything is in it."""
        await self.service._house.record.drain()
        recorder = self.journal._recorder
        assert recorder is not None
        assert await asyncio.to_thread(recorder.flush, 10)
        lines = tail(self.journal.ground.audit_directory, 10**6)
        return [record["fields"] for record in map(json.loads, lines) if record["kind"] == kind]

    def receipt(self, id: str, organisation: str = "acme") -> Receipt:
        """A receipt that is there, verified with the country's public keys."""
        keys = PublicKeys.read(json.dumps(self.journal.jwks()).encode())
        return verify(self.journal.receipt(id, organisation), keys, now=time.time())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    @property
    def engine(self) -> FakeEngine:
        """The first replica's."""
        return self.stands[0].engine

    @property
    def cell_key(self) -> CellKey:
        return CellKey(self.ground.cell_key())

    def report(self, *stands: Stand, draining: Iterable[Stand] = ()) -> None:
        """Fill the table as the router would."""
        told = [
            replace(stand.replica, draining=stand in list(draining), outstanding_tokens=0)
            for stand in stands or self.stands
        ]
        for model in {replica.model for replica in told}:
            self.table.report(model, tuple(replica for replica in told if replica.model == model))

    def add_organisation(self, id: str, plan: Plan = Plan.STANDARD, models: frozenset[str] | None = None) -> str:
        store = self.ground.store()
        store.create_organisation(Organisation(self.country.code, id, plan, models, datetime.now(UTC)))
        store.close()
        return self.add_key(id)

    def add_key(self, organisation: str, expires: datetime | None = None) -> str:
        token, record = mint(
            country=self.country.code,
            organisation=organisation,
            pepper=self.ground.pepper(),
            now=datetime.now(UTC),
            expires=expires,
        )
        store = self.ground.store()
        store.add_key(record)
        store.close()
        self.keys[organisation] = token
        self.key_ids[token] = record.id
        return token

    def revoke(self, token: str) -> None:
        store = self.ground.store()
        store.revoke_key(self.key_ids[token], datetime.now(UTC))
        store.close()

    def client(self, organisation: str | None = "acme", **headers: str) -> httpx.AsyncClient:
        if organisation is not None:
            headers = {"Authorization": f"Bearer {self.keys[organisation]}", **headers}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20)

    def openai(self, organisation: str = "acme", max_retries: int = 0) -> AsyncOpenAI:
        return AsyncOpenAI(
            api_key=self.keys[organisation], base_url=f"{self.url}/v1", max_retries=max_retries, timeout=20
        )


@asynccontextmanager
async def lands(
    home: Path,
    *codes: str,
    replicas: int = 1,
    token_s: float = 0.0,
    context_length: int = 4096,
    limits: ListenerLimits = DEFAULT_LIMITS,
    telling: Telling | None = None,
    cell: Cell | None = None,
) -> AsyncIterator[list[Land]]:
    """Countries that serve. Each has the organisations ``acme`` and ``umbra``, and knows the others' addresses."""
    addresses: dict[str, str] = {}
    async with AsyncExitStack() as leaving:
        found = []
        for code in codes:
            land = await _open(home / code, code, addresses, limits, cell or Cell(), telling or Telling())
            leaving.push_async_callback(land.service.stop)
            for number in range(replicas):
                stand = await stood(land, f"{code}-{number}", FakeEngine(MODEL, context_length, token_s=token_s))
                leaving.callback(stand.telemetry.close)
                leaving.push_async_callback(stand.server.stop)
            land.report()
            found.append(land)
        yield found


@asynccontextmanager
async def land(home: Path, code: str = "ee", **options: Any) -> AsyncIterator[Land]:
    """One country, with the options of :func:`lands`."""
    async with lands(home, code, **options) as (only,):
        yield only


async def stood(land: Land, id: str, engine: FakeEngine) -> Stand:
    """One more replica of a country. The table does not know it yet."""
    telemetry = land.journal.telemetry("domicile-replica", f"{land.country.code}-{id}")
    refusals = Refusals(land.journal.note)
    server = ReplicaServer(engine, land.cell_key, land.country.code, refusals, cell=land.cell, telemetry=telemetry)
    address = await server.start("127.0.0.1")
    facts = engine.facts()
    replica = Replica(
        id,
        land.country.code,
        facts.model,
        address,
        context_length=facts.context_length,
        node=f"node-of-{id}",
        model_digest=DIGEST,
    )
    stand = Stand(engine, server, replica, telemetry)
    land.stands.append(stand)
    return stand


def cut_after(land: Land, tokens: int, how: str = "vanishes") -> list[Stand]:
    """Have the first replica that comes to so many tokens of an answer be lost then. The list will hold it.

    It ``vanishes``, ``breaks off`` its connections, or lives to say that its engine is dead.
    """
    lost: list[Stand] = []
    for stand in land.stands:
        _cut(stand, tokens, how, lost)
    return lost


def _cut(stand: Stand, tokens: int, how: str, lost: list[Stand]) -> None:
    engine, step, done = stand.engine, stand.engine._step, 0

    async def counted() -> None:
        nonlocal done
        if not lost and done == tokens:
            lost.append(stand)
            if how == "vanishes":
                # From outside: it ends the very task that this runs in.
                _vanishing.add(asyncio.create_task(stand.vanish()))
                await asyncio.Event().wait()
            engine.die(torn=how == "breaks off")
        done += 1
        await step()

    engine._step = counted  # type: ignore[method-assign]


_vanishing: set[asyncio.Task[None]] = set()


async def _open(
    home: Path, code: str, addresses: dict[str, str], limits: ListenerLimits, cell: Cell, telling: Telling
) -> Land:
    shipped = load_country(SHIPPED / code)
    models = (
        Model(id=MODEL, source=Source(bundled=MODEL)),
        Model(id=NAMED, source=Source(bundled=MODEL), granted="named", replicas=0),
    )
    country = _AnyPort.model_construct(**{**dict(shipped), "models": models, "telemetry": telling})
    settings = Settings(home=home, countries=SHIPPED)
    ground = CountryGround(settings.country(code), code)
    table = Table()
    gateway = Gateway(country, settings, addresses, table, f"test{next(_sites)}", limits, cell)
    await gateway.start()
    land = Land(country, ground, table, gateway, cell, addresses)
    addresses[code] = land.url
    for organisation in ("acme", "umbra"):
        land.add_organisation(organisation)
    return land


_sites = count()
