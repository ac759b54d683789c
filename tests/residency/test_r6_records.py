"""R6: records stay home. What a country writes is on its own ground, under its own key, and of nobody else."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from serving.records.audit_verify import verify
from serving.records.errors import RecordsUnavailable
from serving.records.journal import Journal
from serving.records.jwks import PublicKeys
from serving.records.record import Kind
from serving.settings import Settings
from tests.house import SHIPPED, Land, lands
from tests.journeys.bodies import ASKED, CHAT

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def countries(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Land]]:
    async with lands(tmp_path_factory.mktemp("home"), "ee", "kr") as found:
        yield found


def keys(land: Land) -> PublicKeys:
    return land.journal.ground.keys().public()


async def ask(land: Land) -> str:
    async with land.client() as client:
        return (await client.post(CHAT, json=ASKED[CHAT])).headers["x-domicile-receipt"]


async def test_r6_one_country_s_answer_leaves_nothing_with_the_other(ee: Land, kr: Land) -> None:
    before = len(await kr.records(Kind.REQUEST))
    id = await ask(ee)
    assert id in {each["receipt"] for each in await ee.records(Kind.REQUEST)}
    assert len(await kr.records(Kind.REQUEST)) == before
    ground = kr.journal.ground.audit_directory.parent
    assert not [path for path in ground.rglob("*") if path.is_file() and id.encode() in path.read_bytes()]


async def test_r6_a_foreign_key_s_refusal_is_the_record_of_who_refused(ee: Land, kr: Land) -> None:
    before = len(await ee.records(Kind.REFUSAL))
    async with kr.client(None, Authorization=f"Bearer {ee.keys['acme']}") as client:
        assert (await client.post(CHAT, json=ASKED[CHAT])).status_code == 401
    told = (await kr.records(Kind.REFUSAL))[-1]
    assert (told["rule"], told["reason"]) == ("r3", "incorrect_hostname")
    assert "organisation" not in told
    assert ee.key_ids[ee.keys["acme"]] not in str(told)
    assert len(await ee.records(Kind.REFUSAL)) == before


async def test_r6_a_log_is_signed_by_its_country_s_key_alone(ee: Land, kr: Land) -> None:
    for land in (ee, kr):
        await ask(land)
        await land.records(Kind.REQUEST)
    here = ee.journal.ground.audit_directory
    assert verify(here, keys(ee), "ee").ok
    assert not verify(here, keys(kr), "ee").ok
    assert not verify(here, keys(ee), "kr").ok


async def test_r6_a_journal_of_one_country_does_not_open_another_s_receipts(ee: Land, kr: Land, tmp_path: Path) -> None:
    moved = tmp_path / "countries" / "ee" / "records"
    moved.parent.mkdir(parents=True)
    moved.symlink_to(kr.journal.ground.audit_directory.parent)
    journal = Journal.for_country(ee.country, Settings(home=tmp_path, countries=SHIPPED))
    with pytest.raises(RecordsUnavailable):
        journal.start()


async def test_r6_without_a_country_there_is_no_journal() -> None:
    parameters = inspect.signature(Journal.for_country).parameters
    assert parameters["country"].default is inspect.Parameter.empty
