"""The demonstration key that ``up`` prints, so that the first request needs nothing else."""

from __future__ import annotations

from datetime import datetime

from serving.cli.recorded import act, recorded
from serving.cli.tenancy import admit
from serving.records.record import Kind
from serving.settings import Settings
from tenants.country import Country
from tenants.ground import CountryGround
from tenants.keyring import mint
from tenants.organisation import Organisation, Plan
from tenants.private import create_private, read_private

ORGANISATION = "demo"
FILE = "demo.key"
_LONGEST = 256


def demo_key(country: Country, settings: Settings, now: datetime) -> str:
    """The country's demonstration key, made when first asked for.

    It is kept in a file that only its owner reads, where other keys are shown once and kept nowhere.
    """
    ground = CountryGround(settings.country(country.code), country.code)
    path = ground.directory / FILE
    with ground.store() as store:
        if path.exists():
            token = read_private(path, _LONGEST).decode()
            identified = ground.keyring().identify(token, now)
            if identified is not None:
                return token
            path.unlink()
        # It may be left from an earlier demonstration, with only the key missing.
        admit(store, country, Organisation(country.code, ORGANISATION, Plan.STANDARD, None, now), settings)
        token, record = mint(country=country.code, organisation=ORGANISATION, pepper=ground.pepper(), now=now)
        made = act(Kind.KEY, action="created", key=record.id, organisation=ORGANISATION)
        with recorded(country, made, settings=settings):
            store.add_key(record)
    create_private(path, token.encode())
    return token
