"""What every implementation of :class:`tenants.store.Store` owes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tenants.organisation import KeyRecord, Organisation, Plan
from tenants.sqlite_store import SqliteStore
from tenants.store import AlreadyExists, NotFound, Store, StoreError

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
HOUR = timedelta(hours=1)
ACME = Organisation("ee", "acme", Plan.STARTUP, None, NOW)
BEAM = Organisation("ee", "beam", Plan.FREE, frozenset({"small", "large"}), NOW)

Opener = Callable[[], Store]


def key(
    id: str,
    organisation: str = "acme",
    created: datetime = NOW,
    expires: datetime | None = None,
    revoked: datetime | None = None,
) -> KeyRecord:
    return KeyRecord(id, "ee", organisation, bytes(32), created, expires, revoked)


def sqlite(folder: Path) -> Store:
    return SqliteStore.open(folder / "tenants.sqlite", "ee")


@pytest.fixture(params=[sqlite])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same country's store again and again, as several processes would."""
    opened: list[Store] = []

    def open_again() -> Store:
        opened.append(request.param(tmp_path))
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()


@pytest.fixture
def store(opener: Opener) -> Store:
    store = opener()
    store.create_organisation(ACME)
    store.create_organisation(BEAM)
    return store


def test_what_is_kept_comes_back_the_same(store: Store, opener: Opener) -> None:
    kept = key("k1", expires=NOW + HOUR, revoked=NOW)
    store.add_key(kept)
    for reader in (store, opener()):
        assert reader.organisation("beam") == BEAM
        assert reader.list_organisations() == [ACME, BEAM]
        assert reader.key("k1") == kept


def test_an_organisation_granted_nothing_is_not_granted_everything(store: Store) -> None:
    store.create_organisation(replace(ACME, id="none", models=frozenset()))
    assert store.organisation("none").models == frozenset()


def test_what_is_not_there(store: Store) -> None:
    for ask in (
        lambda: store.organisation("none"),
        lambda: store.key("none"),
        lambda: store.list_keys("none"),
        lambda: store.add_key(key("k1", "none")),
        lambda: store.revoke_key("none", NOW),
        lambda: store.rotate_key("none", key("k2"), NOW),
    ):
        with pytest.raises(NotFound):
            ask()
    assert store.list_keys() == []


def test_an_id_is_given_once(store: Store) -> None:
    store.add_key(key("k1"))
    with pytest.raises(AlreadyExists):
        store.create_organisation(replace(ACME, plan=Plan.BATCH))
    with pytest.raises(AlreadyExists):
        store.add_key(key("k1", "beam"))
    assert store.organisation("acme") == ACME
    assert store.key("k1").organisation == "acme"


def test_keys_come_oldest_first(store: Store) -> None:
    store.add_key(key("b", created=NOW))
    store.add_key(key("a", created=NOW + HOUR))
    store.add_key(key("c", "beam", created=NOW - HOUR))
    assert [each.id for each in store.list_keys()] == ["c", "b", "a"]
    assert [each.id for each in store.list_keys("acme")] == ["b", "a"]
    assert [each.id for each in store.list_keys("beam")] == ["c"]


def test_the_first_revocation_counts(store: Store) -> None:
    store.add_key(key("k1"))
    assert store.revoke_key("k1", NOW).revoked == NOW
    assert store.revoke_key("k1", NOW + HOUR).revoked == NOW
    assert store.key("k1").revoked == NOW


def test_rotation_adds_one_and_ends_the_other(store: Store) -> None:
    store.add_key(key("old"))
    assert store.rotate_key("old", key("new"), NOW + HOUR) == key("old", expires=NOW + HOUR)
    assert store.list_keys("acme") == [key("new"), key("old", expires=NOW + HOUR)]


def test_rotation_never_lengthens_a_key_s_life(store: Store) -> None:
    store.add_key(key("old", expires=NOW + HOUR))
    assert store.rotate_key("old", key("new"), NOW + 2 * HOUR).expires == NOW + HOUR


def test_rotation_is_all_or_nothing(store: Store) -> None:
    store.add_key(key("old"))
    store.add_key(key("taken"))
    with pytest.raises(AlreadyExists):
        store.rotate_key("old", key("taken"), NOW)
    with pytest.raises(StoreError, match="another organisation"):
        store.rotate_key("old", key("new", "beam"), NOW)
    assert [each.expires for each in store.list_keys()] == [None, None]


@pytest.mark.parametrize("ended", [key("old", revoked=NOW), key("old", expires=NOW)])
def test_a_key_that_has_ended_has_no_successor(store: Store, ended: KeyRecord) -> None:
    store.add_key(ended)
    with pytest.raises(StoreError, match="ended already"):
        store.rotate_key("old", key("new"), NOW + HOUR)
    assert [each.id for each in store.list_keys()] == ["old"]


def test_r6_records_of_another_country_are_refused(store: Store) -> None:
    foreign = replace(key("k1"), country="kr")
    store.add_key(key("old"))
    for put in (
        lambda: store.create_organisation(replace(ACME, id="other", country="kr")),
        lambda: store.add_key(foreign),
        lambda: store.rotate_key("old", foreign, NOW),
    ):
        with pytest.raises(StoreError, match="no place in the store of ee"):
            put()


def test_every_commit_changes_the_version_for_everybody(store: Store, opener: Opener) -> None:
    readers = [store, opener()]
    changes = (
        lambda: store.add_key(key("k1")),
        lambda: opener().rotate_key("k1", key("k2"), NOW + HOUR),
        lambda: store.revoke_key("k1", NOW),
        lambda: store.create_organisation(replace(ACME, id="third")),
    )
    for change in changes:
        before = [reader.version() for reader in readers]
        assert before == [reader.version() for reader in readers]
        change()
        after = [reader.version() for reader in readers]
        assert all(old != new for old, new in zip(before, after, strict=True))


def test_writers_at_once_all_get_through(store: Store, opener: Opener) -> None:
    stores = [opener() for _ in range(4)]
    failures: list[Exception] = []

    def write(number: int) -> None:
        try:
            for turn in range(10):
                stores[number % 4].add_key(key(f"{number}-{turn}"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(store.list_keys()) == 80
