"""The one door to a country's records."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.records.audit_verify import verify
from serving.records.errors import RecordsUnavailable
from serving.records.journal import Journal
from serving.records.receipt_store import ReceiptNotFound
from serving.settings import Settings
from tenants.registry import load_country
from tests.house import SHIPPED
from tests.records.logs import answered, refusal


def journal(home: Path, code: str = "ee") -> Journal:
    return Journal.for_country(load_country(SHIPPED / code), Settings(home=home, countries=SHIPPED))


def test_what_was_noted_is_there_when_it_is_closed(tmp_path: Path) -> None:
    served = answered()
    with journal(tmp_path).start() as open_:
        assert open_.healthy
        open_.note(served)
        open_.note(refusal())
    later = journal(tmp_path)
    verdict = verify(later.ground.audit_directory, later.ground.keys().public(), "ee")
    assert (verdict.ok, verdict.records) == (True, 3)
    assert later.receipt(served.receipt, served.organisation).count(".") == 2
    with pytest.raises(ReceiptNotFound):
        later.receipt(served.receipt, "umbra")
    assert later.close()


def test_a_command_s_record_is_there_at_once(tmp_path: Path) -> None:
    journal(tmp_path).append([refusal()])
    assert len(list((tmp_path / "countries" / "ee").rglob("audit-*.jsonl"))) == 1


def test_one_that_was_not_started_or_was_closed_takes_nothing_and_is_not_healthy(tmp_path: Path) -> None:
    closed = journal(tmp_path)
    for _ in range(2):
        assert not closed.healthy
        with pytest.raises(RecordsUnavailable):
            closed.note(refusal())
        closed.start().close()


def test_r6_each_country_writes_on_its_own_ground_and_with_its_own_key(tmp_path: Path) -> None:
    with journal(tmp_path, "ee").start() as ee, journal(tmp_path, "kr").start() as kr:
        ee.note(answered())
    found = {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {("countries", "ee"), ("countries", "kr")}
    assert ee.jwks() != kr.jwks()
    assert {entry["kid"] for entry in ee.jwks()["keys"]}.isdisjoint({entry["kid"] for entry in kr.jwks()["keys"]})  # type: ignore[attr-defined]


def test_r6_for_country_alone_touches_no_file(tmp_path: Path) -> None:
    journal(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_policy_digest_changes_with_the_file_and_with_nothing_else(tmp_path: Path) -> None:
    country = load_country(SHIPPED / "ee")
    assert country.policy_digest == load_country(SHIPPED / "ee").policy_digest
    changed = country.model_copy(update={"slo": country.slo.model_copy(update={"request_s": 1.0})})
    assert len({country.policy_digest, changed.policy_digest, load_country(SHIPPED / "kr").policy_digest}) == 3
