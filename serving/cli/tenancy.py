"""What the commands about a country's organisations and keys have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import typer

from serving.cli.output import fail
from serving.cli.recorded import act, recorded
from serving.records.record import Kind
from serving.settings import Settings
from tenants.country import Country
from tenants.errors import TenantError
from tenants.ground import CountryGround, GroundError
from tenants.organisation import Organisation
from tenants.registry import find_country
from tenants.sqlite_store import SqliteStore
from tenants.store import AlreadyExists, NotFound, StoreError

CountryCode = Annotated[str, typer.Argument(metavar="CC", help="The country's code, such as ee.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def country_named(code: str) -> Country:
    """The country that the user named, or an end to the command."""
    try:
        return find_country(Settings.from_environment().countries, code)
    except TenantError as error:
        fail(str(error))


def ground_of(country: Country) -> CountryGround:
    """Where the country keeps its store and its secrets."""
    return CountryGround(Settings.from_environment().country(country.code), country.code)


@contextmanager
def store_of(country: Country) -> Iterator[SqliteStore]:
    """The country's store, whether or not the country is up. What it refuses ends the command."""
    try:
        with ground_of(country).store() as store:
            yield store
    except (StoreError, GroundError) as error:
        fail(str(error))


def admit(store: SqliteStore, country: Country, organisation: Organisation, settings: Settings) -> None:
    """Let an organisation in, unless it has been."""
    with suppress(NotFound):
        store.organisation(organisation.id)
        return
    done = act(Kind.ADMIN, action="organisation_created", organisation=organisation.id, subject=organisation.plan.value)
    # Another command may have been as quick.
    with suppress(AlreadyExists), recorded(country, done, settings=settings):
        store.create_organisation(organisation)
