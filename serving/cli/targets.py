"""Whom a load test asks, and on whose behalf: the targets file of ``python -m loadtests``, with keys for one run.

Its format is that of ``loadtests.targets``, which this side of the house does not import.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from serving.cli.recorded import act, record_ending, recorded
from serving.cli.tenancy import admit
from serving.records.record import Kind, Record
from serving.settings import Settings
from tenants.country import Country, Model
from tenants.errors import Problem, TenantError
from tenants.ground import CountryGround
from tenants.keyring import mint
from tenants.organisation import KeyRecord, Organisation, Plan
from tenants.private import create_private
from tenants.sqlite_store import SqliteStore

OURS, THEIRS = "domicile", "against"


@dataclass(frozen=True, slots=True)
class Customer:
    """An organisation as the scenario names it."""

    id: str
    plan: Plan

    @property
    def organisation(self) -> str:
        """Its id in the country's store. The plan is a part of it, since a plan does not change."""
        return f"loadtest-{self.plan}-{self.id}"


@dataclass(frozen=True, slots=True)
class Rival:
    """An endpoint that speaks the OpenAI API, to be compared with."""

    base_url: str
    model: str | None = None
    """What it calls the model; the same as ours when left out."""
    key: str = ""


def customers(groups: Sequence[Mapping[str, object]]) -> list[Customer]:
    """Those of a scenario's ``organisations``: ``id`` for one, ``id-1`` and so on for several."""
    found = []
    for group in groups:
        id, plan, count = str(group["id"]), Plan(str(group["plan"])), int(str(group["count"]))
        names = [id] if count == 1 else [f"{id}-{number}" for number in range(1, count + 1)]
        found += [Customer(name, plan) for name in names]
    return found


@contextmanager
def targets_file(
    countries: Sequence[Country],
    who: Sequence[Customer],
    settings: Settings,
    lifetime: timedelta,
    rival: Rival | None = None,
) -> Iterator[Path]:
    """A file that only its owner reads, there for as long as the block; then it is gone and its keys open nothing.

    ``lifetime`` ends the keys also where this process was killed.

    Raises:
        TenantError: a country has no model that every organisation may use, or an id is none.
        GroundError, StoreError: the country's ground cannot be used.
    """
    with ExitStack() as ending:
        ours = [_country(one, ending.enter_context(_keys(one, who, settings, lifetime)), who) for one in countries]
        sides = [{"name": OURS, "countries": ours}]
        if rival is not None:
            sides.append({"name": THEIRS, "countries": [_against(one, rival, who) for one in ours]})
        folder = ending.enter_context(tempfile.TemporaryDirectory(prefix="domicile-loadtest-"))
        path = Path(folder) / "targets.json"
        create_private(path, orjson.dumps({"sides": sides}))
        yield path


@contextmanager
def _keys(
    country: Country, who: Sequence[Customer], settings: Settings, lifetime: timedelta
) -> Iterator[Mapping[str, str]]:
    """A key for each customer, by its id in the scenario. They are revoked at the end."""
    ground = CountryGround(settings.country(country.code), country.code)
    pepper, now = ground.pepper(), datetime.now(UTC)
    with ground.store() as store, ExitStack() as ending:
        minted = {}
        for one in who:
            admit(store, country, _organisation(country, one, now), settings)
            minted[one.id] = mint(
                country=country.code, organisation=one.organisation, pepper=pepper, now=now, expires=now + lifetime
            )
        records = [record for _, record in minted.values()]
        # Last to be called: what ends is told when it has.
        ending.callback(record_ending, country, *_acts("revoked", records), settings=settings)
        with recorded(country, *_acts("created", records), settings=settings):
            for record in records:
                store.add_key(record)
                ending.callback(_revoke, store, record.id)
        yield {id: token for id, (token, _) in minted.items()}


def _acts(action: str, keys: Sequence[KeyRecord]) -> list[Record]:
    return [act(Kind.KEY, action=action, key=key.id, organisation=key.organisation) for key in keys]


def _organisation(country: Country, customer: Customer, now: datetime) -> Organisation:
    try:
        return Organisation(country.code, customer.organisation, customer.plan, None, now)
    except ValueError as error:
        raise TenantError(Path(country.code), [Problem("organisations", f"'{customer.id}': {error}")]) from error


def _revoke(store: SqliteStore, key_id: str) -> None:
    store.revoke_key(key_id, datetime.now(UTC))


def _country(country: Country, keys: Mapping[str, str], who: Sequence[Customer]) -> dict[str, object]:
    tls = country.gateway.tls
    return {
        "code": country.code,
        "base_url": country.address,
        "model": _model(country).id,
        "time_zone": country.time_zone,
        "slo": country.slo.model_dump(mode="json"),
        "organisations": [{**_described(one), "key": keys[one.id]} for one in who],
        "residency": True,
        "ca": None if tls is None else str(tls.certificate),
    }


def _against(ours: Mapping[str, object], rival: Rival, who: Sequence[Customer]) -> dict[str, object]:
    """The rival in the country's place: asked by the same organisations, and held to the same promises."""
    return {
        **ours,
        "base_url": rival.base_url,
        "model": rival.model or ours["model"],
        "organisations": [{**_described(one), "key": rival.key} for one in who],
        "residency": False,
        "ca": None,
    }


def _described(customer: Customer) -> dict[str, object]:
    return {"id": customer.id, "service_class": customer.plan.service_class}


def _model(country: Country) -> Model:
    for model in country.models:
        if model.granted == "all":
            return model
    raise TenantError(
        Path(country.code),
        [Problem("models", "each is granted by name, and a load test's organisations have no grant")],
    )
