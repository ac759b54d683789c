"""Claims: what was signed comes back, what was touched does not, and each opens one door once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.replicas.claim import LEEWAY_S, LIFETIME_S, LONGEST, CellKey, Claim, ClaimRejected, Doorkeeper
from serving.types import ServiceClass

KEY, OTHER = CellKey(b"k" * 32), CellKey(b"o" * 32)
NOW = 1_000_000.0
CLAIM = Claim("ee", "acme", "req_1", ServiceClass.INTERACTIVE, "/v1/x", NOW + 600, NOW + LIFETIME_S)
TOKEN = KEY.sign(CLAIM)

claims = st.builds(
    Claim,
    country=st.text(max_size=4),
    organisation=st.text(max_size=63),
    request_id=st.text(max_size=40),
    service_class=st.sampled_from(ServiceClass),
    path=st.text(max_size=30),
    deadline=st.floats(0, 1e12),
    expiry=st.floats(0, 1e12),
    weight=st.floats(0.1, 100),
)


def rejected(token: str | None, key: CellKey = KEY) -> bool:
    """Whether a token is refused, which is the only thing that may go wrong with it."""
    try:
        Doorkeeper(key, "ee").admit(token, "/v1/x", NOW)
    except ClaimRejected:
        return True
    return False


@given(claims)
def test_what_was_signed_comes_back(claim: Claim) -> None:
    assert KEY.verify(KEY.sign(claim)) == claim
    with pytest.raises(ClaimRejected):
        OTHER.verify(KEY.sign(claim))


@given(st.integers(0, len(TOKEN) - 1), st.characters())
def test_any_flipped_character_is_rejected(place: int, character: str) -> None:
    flipped = TOKEN[:place] + character + TOKEN[place + 1 :]
    assert rejected(flipped) is (flipped != TOKEN)


def test_every_single_flip_to_a_neighbour_is_rejected() -> None:
    """Also where base64 has bits to spare."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=."
    assert not rejected(TOKEN)
    for place, letter in enumerate(TOKEN):
        for other in alphabet:
            assert other == letter or rejected(TOKEN[:place] + other + TOKEN[place + 1 :])


@given(st.integers(0, len(TOKEN)), st.text(min_size=1, max_size=5))
def test_nothing_can_be_put_in_or_taken_out(place: int, text: str) -> None:
    assert rejected(TOKEN[:place] + text + TOKEN[place:])
    assert place == len(TOKEN) or rejected(TOKEN[:place])


@given(st.text())
def test_nonsense_is_rejected(token: str) -> None:
    assert rejected(token)


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        ".",
        "..",
        "v1",
        "v1..",
        "\ud800",
        "v1.\ud800.x",
        "ä" * 100,
        "x" * 10**6,
        TOKEN + " " * 10**6,
        "." * 10**5,
    ],
)
def test_so_is_what_is_worse(token: str | None) -> None:
    assert rejected(token)


def test_one_that_is_too_long_is_rejected_though_it_was_signed() -> None:
    assert rejected(KEY.sign(replace(CLAIM, organisation="a" * LONGEST)))


@pytest.mark.parametrize(
    "claim",
    [
        replace(CLAIM, country="kr"),
        replace(CLAIM, country="EE"),
        replace(CLAIM, path="/v1/y"),
        replace(CLAIM, path="/v1/x/"),
        replace(CLAIM, expiry=NOW),
        replace(CLAIM, expiry=NOW - 1),
        replace(CLAIM, expiry=NOW + LIFETIME_S + LEEWAY_S + 1),
        replace(CLAIM, expiry=float("1e300")),
    ],
)
def test_a_genuine_one_for_something_else_is_rejected(claim: Claim) -> None:
    assert rejected(KEY.sign(claim))


def test_a_clock_that_is_a_little_ahead_is_forgiven() -> None:
    assert not rejected(KEY.sign(replace(CLAIM, expiry=NOW + LIFETIME_S + LEEWAY_S)))


def test_each_is_good_once() -> None:
    door = Doorkeeper(KEY, "ee")
    assert door.admit(TOKEN, "/v1/x", NOW) == CLAIM
    for later in (0, 1, LIFETIME_S - 0.1, LIFETIME_S + 1, 10 * LIFETIME_S):
        with pytest.raises(ClaimRejected):
            door.admit(TOKEN, "/v1/x", NOW + later)
    # The same request id in another envelope is the same request.
    with pytest.raises(ClaimRejected):
        door.admit(KEY.sign(replace(CLAIM, deadline=NOW + 1)), "/v1/x", NOW)


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0, 20)), max_size=40))
def test_no_order_of_events_admits_one_twice(events: list[tuple[int, float]]) -> None:
    door, now = Doorkeeper(KEY, "ee"), NOW
    admitted: set[int] = set()
    for number, wait in events:
        now += wait
        token = KEY.sign(replace(CLAIM, request_id=str(number), expiry=NOW + LIFETIME_S))
        try:
            door.admit(token, "/v1/x", now)
        except ClaimRejected:
            assert number in admitted or now >= NOW + LIFETIME_S
        else:
            assert number not in admitted
            admitted.add(number)


def test_what_has_expired_is_forgotten() -> None:
    door = Doorkeeper(KEY, "ee")
    for number in range(1000):
        at = NOW + number
        door.admit(KEY.sign(replace(CLAIM, request_id=str(number), expiry=at + LIFETIME_S)), "/v1/x", at)
    assert len(door._used) <= 2 * LIFETIME_S + 1


def test_a_refused_claim_is_not_used_up() -> None:
    door = Doorkeeper(KEY, "ee")
    with pytest.raises(ClaimRejected):
        door.admit(TOKEN, "/v1/y", NOW)
    assert door.admit(TOKEN, "/v1/x", NOW) == CLAIM


def test_a_cell_key_has_enough_bytes() -> None:
    with pytest.raises(ValueError, match="32"):
        CellKey(b"k" * 31)


def test_salts_are_hex_and_fit_vllm() -> None:
    salts = {KEY.cache_salt("a"), KEY.cache_salt("b"), OTHER.cache_salt("a")}
    assert len(salts) == 3
    assert all(len(salt) == 64 and int(salt, 16) for salt in salts)
    assert KEY.cache_salt("a") == KEY.cache_salt("a")
