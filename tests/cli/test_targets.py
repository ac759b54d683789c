from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from loadtests.scenario import Organisations
from loadtests.targets import Targets, read_targets
from serving.cli.targets import Customer, Rival, customers, targets_file
from serving.records.journal import Journal
from serving.records.tail import tail
from serving.settings import Settings
from tenants.country import Country, Model, Source
from tenants.errors import TenantError
from tenants.ground import CountryGround
from tenants.organisation import Plan
from tenants.registry import find_country
from tests.house import SHIPPED

HOUR = timedelta(hours=1)
WHO = [Customer("acme", Plan.STARTUP), Customer("crowd-1", Plan.BATCH), Customer("crowd-2", Plan.BATCH)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", countries=SHIPPED)


@pytest.fixture
def countries(settings: Settings) -> list[Country]:
    return [find_country(settings.countries, code) for code in ("ee", "kr")]


def identified(settings: Settings, code: str, token: str, after: timedelta = timedelta()) -> str | None:
    """The organisation that the country's gateway would take the key's bearer for."""
    found = CountryGround(settings.country(code), code).keyring().identify(token, datetime.now(UTC) + after)
    return None if found is None else found.organisation.id


def test_a_scenario_s_organisations_are_named_as_its_schedule_names_them() -> None:
    groups = [Organisations(id="acme", plan="startup"), Organisations(id="crowd", count=2, plan="batch")]
    assert customers([one.model_dump(mode="json") for one in groups]) == WHO


def test_load_tests_can_read_it_and_its_keys_open_the_country(settings: Settings, countries: list[Country]) -> None:
    with targets_file(countries, WHO, settings, HOUR) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        targets = read_targets(path)
        (side,) = targets.sides
        assert side.name == "domicile"
        for told, country in zip(side.countries, countries, strict=True):
            assert (told.code, told.origin, told.time_zone) == (country.code, country.address, country.time_zone)
            assert told.slo == country.slo
            assert told.residency
            assert country.model(told.model)
            assert [(one.id, one.service_class) for one in told.organisations] == [
                ("acme", "interactive"),
                ("crowd-1", "batch"),
                ("crowd-2", "batch"),
            ]
            owners = [identified(settings, country.code, one.key) for one in told.organisations]
            assert owners == ["loadtest-startup-acme", "loadtest-batch-crowd-1", "loadtest-batch-crowd-2"]
    assert not path.parent.exists()


@pytest.mark.parametrize("end", [None, KeyboardInterrupt, RuntimeError])
def test_its_keys_open_nothing_afterwards(
    settings: Settings, countries: list[Country], end: type[BaseException] | None
) -> None:
    targets: Targets | None = None
    try:
        with targets_file(countries, WHO, settings, HOUR) as path:
            targets = read_targets(path)
            if end is not None:
                raise end
    except (KeyboardInterrupt, RuntimeError):
        pass
    assert targets is not None
    for country in targets.sides[0].countries:
        assert {identified(settings, country.code, one.key) for one in country.organisations} == {None}


def test_its_keys_end_by_themselves_where_nobody_ends_them(settings: Settings, countries: list[Country]) -> None:
    with targets_file(countries[:1], WHO[:1], settings, HOUR) as path:
        key = read_targets(path).sides[0].countries[0].organisations[0].key
        assert identified(settings, "ee", key, timedelta(minutes=59)) == "loadtest-startup-acme"
        assert identified(settings, "ee", key, timedelta(minutes=61)) is None


def test_the_organisations_stay_and_are_found_again(settings: Settings, countries: list[Country]) -> None:
    for _ in range(2):
        with targets_file(countries, WHO, settings, HOUR):
            pass
    with CountryGround(settings.country("ee"), "ee").store() as store:
        assert [(one.id, one.plan) for one in store.list_organisations()] == [
            ("loadtest-batch-crowd-1", Plan.BATCH),
            ("loadtest-batch-crowd-2", Plan.BATCH),
            ("loadtest-startup-acme", Plan.STARTUP),
        ]


def test_a_rival_gets_the_same_organisations_and_none_of_their_keys(
    settings: Settings, countries: list[Country]
) -> None:
    for rival in (Rival("http://127.0.0.1:1/v1"), Rival("https://llm.example", "theirs", "secret")):
        with targets_file(countries, WHO, settings, HOUR, rival) as path:
            ours, theirs = read_targets(path).sides
        assert theirs.name == "against"
        for own, other in zip(ours.countries, theirs.countries, strict=True):
            assert (other.code, other.slo, other.base_url) == (own.code, own.slo, rival.base_url)
            assert other.model == (rival.model or own.model)
            assert not other.residency
            assert [(one.id, one.service_class, one.key) for one in other.organisations] == [
                (one.id, one.service_class, rival.key) for one in own.organisations
            ]


def test_a_country_without_a_model_for_everybody_is_refused(settings: Settings, countries: list[Country]) -> None:
    named = (Model(id="named", source=Source(bundled="small"), granted="named"),)
    country = countries[0].model_copy(update={"models": named})
    with pytest.raises(TenantError, match="granted by name"), targets_file([country], WHO, settings, HOUR):
        pass


def test_an_id_that_is_too_long_is_refused(settings: Settings, countries: list[Country]) -> None:
    with (
        pytest.raises(TenantError, match="organisations"),
        targets_file(countries, [Customer("a" * 60, Plan.FREE)], settings, HOUR),
    ):
        pass


def test_what_it_makes_and_ends_is_in_the_countries_logs(settings: Settings, countries: list[Country]) -> None:
    for _ in range(2):
        with targets_file(countries, WHO, settings, HOUR):
            pass
    for country in countries:
        lines = tail(Journal.for_country(country, settings).ground.audit_directory, 100)
        acts = [(record["kind"], record["fields"]["action"]) for record in map(json.loads, lines)]
        keys = [*[("key", "created")] * 3, *[("key", "revoked")] * 3]
        assert acts == [*[("admin", "organisation_created")] * 3, *keys, *keys]
