from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.ground import CountryGround
from tenants.keyring import ALPHABET, Identified, Keyring, _check, digest, mint, parse
from tenants.organisation import KeyRecord, Organisation, Plan
from tenants.sqlite_store import SqliteStore

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PEPPER = bytes(range(32))
TOKEN, RECORD = mint(country="ee", organisation="acme", pepper=PEPPER, now=NOW)


@given(st.from_regex(r"[a-z]{2}", fullmatch=True))
def test_what_is_minted_is_parsed(country: str) -> None:
    token, record = mint(country=country, organisation="acme", pepper=PEPPER, now=NOW)
    assert parse(token) == (country, record.id)
    assert record.digest == digest(PEPPER, token)
    assert token.startswith(f"sk-{country}-{record.id}-")


@given(st.integers(0, len(TOKEN) - 1), st.characters() | st.sampled_from(ALPHABET + "-"))
def test_any_change_of_one_character_is_noticed(at: int, character: str) -> None:
    changed = TOKEN[:at] + character + TOKEN[at + 1 :]
    assert (parse(changed) is None) == (changed != TOKEN)


@given(st.integers(0, len(TOKEN) - 2))
def test_swapped_neighbours_are_noticed(at: int) -> None:
    swapped = TOKEN[:at] + TOKEN[at + 1] + TOKEN[at] + TOKEN[at + 2 :]
    assert (parse(swapped) is None) == (swapped != TOKEN)


@given(st.text() | st.text(alphabet=ALPHABET + "-", min_size=len(TOKEN), max_size=len(TOKEN)))
def test_parse_never_raises(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("text", ["", TOKEN + "\n", " " + TOKEN, TOKEN * 1000, TOKEN.upper(), "sk-proj-" + "a" * 61])
def test_no_key_of_ours(text: str) -> None:
    assert parse(text) is None


def test_no_two_keys_alike() -> None:
    tokens = {mint(country="ee", organisation="acme", pepper=PEPPER, now=NOW)[0] for _ in range(200)}
    assert len(tokens) == 200


def test_a_record_does_not_hold_the_key() -> None:
    secret = TOKEN.split("-")[3]
    assert secret not in repr(RECORD)
    assert secret.encode() not in RECORD.digest


@pytest.fixture
def ground(tmp_path: Path) -> CountryGround:
    return CountryGround(tmp_path / "ee", "ee")


@pytest.fixture
def store(ground: CountryGround) -> Iterator[SqliteStore]:
    with ground.store() as store:
        store.create_organisation(Organisation("ee", "acme", Plan.FREE, None, NOW))
        yield store


def add(store: SqliteStore, ground: CountryGround, **times: datetime) -> tuple[str, KeyRecord]:
    token, key = mint(country="ee", organisation="acme", pepper=ground.pepper(), now=NOW, **times)
    store.add_key(key)
    return token, key


def test_a_key_names_its_owner(ground: CountryGround, store: SqliteStore) -> None:
    token, key = add(store, ground)
    assert ground.keyring().identify(token, NOW) == Identified(store.organisation("acme"), key)


def test_r1_unknown_revoked_expired_foreign_and_forged_keys_look_alike(
    ground: CountryGround, store: SqliteStore
) -> None:
    keyring = ground.keyring()
    revoked, revoked_key = add(store, ground)
    store.revoke_key(revoked_key.id, NOW)
    expired, _ = add(store, ground, expires=NOW)
    unknown, _ = mint(country="ee", organisation="acme", pepper=ground.pepper(), now=NOW)
    foreign, _ = mint(country="kr", organisation="acme", pepper=ground.pepper(), now=NOW)
    _, known = add(store, ground)
    forged = _with_id(unknown, known.id)
    assert parse(forged) == ("ee", known.id)
    for token in (revoked, expired, unknown, foreign, forged, "", "nonsense"):
        assert keyring.identify(token, NOW) is None


def test_a_store_is_worthless_under_another_pepper(ground: CountryGround, store: SqliteStore) -> None:
    token, _ = add(store, ground)
    assert Keyring(store, bytes(32), "ee").identify(token, NOW) is None


def test_r1_a_keyring_reads_no_other_country(store: SqliteStore) -> None:
    with pytest.raises(ValueError, match="keyring of kr cannot read the store of ee"):
        Keyring(store, PEPPER, "kr")


def test_a_key_ends_when_it_expires(ground: CountryGround, store: SqliteStore) -> None:
    token, _ = add(store, ground, expires=NOW + timedelta(hours=1))
    keyring = ground.keyring()
    assert keyring.identify(token, NOW + timedelta(minutes=59))
    assert keyring.identify(token, NOW + timedelta(hours=1)) is None


@pytest.mark.parametrize("same_connection", [True, False])
def test_a_change_counts_from_the_next_request_on(
    ground: CountryGround, store: SqliteStore, same_connection: bool
) -> None:
    keyring = Keyring(store, ground.pepper(), "ee") if same_connection else ground.keyring()
    token, key = add(store, ground)
    assert keyring.identify(token, NOW)
    other, _ = add(store, ground)
    assert keyring.identify(other, NOW)
    store.revoke_key(key.id, NOW)
    assert keyring.identify(token, NOW) is None
    assert keyring.identify(other, NOW)


def test_guesses_are_not_remembered(ground: CountryGround) -> None:
    keyring = ground.keyring()
    for _ in range(50):
        guess, _ = mint(country="ee", organisation="acme", pepper=PEPPER, now=NOW)
        assert keyring.identify(guess, NOW) is None
    assert not keyring._known


def _with_id(token: str, key_id: str) -> str:
    _, country, _, secret, _ = token.split("-")
    body = f"sk-{country}-{key_id}-{secret}"
    return f"{body}-{_check(body)}"
