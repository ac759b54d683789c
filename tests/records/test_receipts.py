from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.records.batch import Written
from serving.records.errors import Check, Rejected
from serving.records.jwks import PublicKeys
from serving.records.jws import seal
from serving.records.receipts import LEEWAY_S, TYPE, Outcome, issue, new_receipt_id, verify
from serving.records.signing import NOTICE_S, FileSigner, KeyFolder
from serving.types import Usage
from tests.records.logs import NOW, answered

NOW_S = NOW // 1000
AUDIT = Written(41, "ab" * 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> KeyFolder:
    return KeyFolder(Path(tmp_path_factory.mktemp("keys")) / "signing")


@pytest.fixture(scope="module")
def signer(folder: KeyFolder) -> FileSigner:
    return folder.current()


@pytest.fixture(scope="module")
def keys(signer: FileSigner) -> PublicKeys:
    return PublicKeys([signer.public])


def refused(token: str, keys: PublicKeys, now: float = NOW_S) -> Check:
    with pytest.raises(Rejected) as caught:
        verify(token, keys, now=now)
    return caught.value.check


def test_a_receipt_says_what_was_answered(signer: FileSigner, keys: PublicKeys) -> None:
    served = answered()
    receipt = verify(issue(served, "ee", AUDIT, signer, NOW_S) + "\n", keys, now=NOW_S)
    assert (receipt.id, receipt.country, receipt.iat, receipt.audit) == (served.receipt, "ee", NOW_S, AUDIT)
    same = ("request", "organisation", "site", "node", "model", "model_digest", "policy_digest", "outcome", "usage")
    assert {name: getattr(receipt, name) for name in same} == {name: getattr(served, name) for name in same}


def test_ids_are_distinct_and_grow_with_time() -> None:
    ids = [new_receipt_id(NOW + number) for number in range(100)]
    assert sorted(ids) == ids
    assert len({new_receipt_id(NOW) for _ in range(100)}) == 100
    assert {len(id) for id in ids} == {len("rcpt_") + 26}


def test_a_receipt_does_not_expire_and_comes_from_no_future(signer: FileSigner, keys: PublicKeys) -> None:
    token = issue(answered(), "ee", AUDIT, signer, NOW_S)
    assert verify(token, keys, now=NOW_S + 10**9)
    assert verify(token, keys, now=NOW_S - LEEWAY_S)
    assert refused(token, keys, NOW_S - LEEWAY_S - 1) is Check.TIME


def test_old_receipts_hold_after_a_rotation_and_late_ones_do_not(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "signing")
    old = folder.current()
    folder.rotate(NOW_S)
    keys = PublicKeys.read(orjson.dumps(folder.public().document()))
    for iat in (NOW_S - 10**6, NOW_S, NOW_S + NOTICE_S):
        assert verify(issue(answered(), "ee", AUDIT, old, iat), keys, now=NOW_S + 10**6).iat == iat
    late = issue(answered(), "ee", AUDIT, old, NOW_S + NOTICE_S + 1)
    assert refused(late, keys, NOW_S + 10**6) is Check.TIME
    assert verify(issue(answered(), "ee", AUDIT, folder.current(), NOW_S), keys, now=NOW_S)


def test_another_country_s_keys_know_nothing_of_it(signer: FileSigner, tmp_path: Path) -> None:
    other = KeyFolder(tmp_path / "signing")
    other.current()
    assert refused(issue(answered(), "ee", AUDIT, signer, NOW_S), other.public()) is Check.KEY


def test_a_signed_statement_of_another_kind_is_no_receipt(signer: FileSigner, keys: PublicKeys) -> None:
    assert refused(seal(signer, "domicile-audit-head+jws", {}), keys) is Check.TYPE


GOOD: dict[str, object] = {
    **{
        name: value
        for name, value in asdict(answered()).items()
        if name not in ("receipt", "key", "endpoint", "duration_ms")
    },
    "id": answered().receipt,
    "iat": NOW_S,
    "country": "ee",
    "audit": {"seq": 41, "prev": "ab" * 32},
}


@pytest.mark.parametrize(
    "change",
    [
        {"id": "rcpt_short"},
        {"id": None},
        {"iat": str(NOW_S)},
        {"iat": -1},
        {"iat": True},
        {"iat": 1.5},
        {"country": "EE"},
        {"request": "two words"},
        {"model_digest": "sha256:short"},
        {"outcome": "perfect"},
        {"usage": {"prompt_tokens": 1, "completion_tokens": 2}},
        {"usage": {"prompt_tokens": 1, "completion_tokens": 2, "cached_tokens": 0, "cost": 1}},
        {"usage": {"prompt_tokens": -1, "completion_tokens": 2, "cached_tokens": 0}},
        {"usage": []},
        {"audit": {"seq": 41, "prev": "xyz"}},
        {"audit": None},
        {"prompt": "hello"},
    ],
)
def test_a_payload_that_is_no_receipt_s_is_refused_though_signed(
    signer: FileSigner, keys: PublicKeys, change: dict[str, object]
) -> None:
    assert verify(seal(signer, TYPE, GOOD), keys, now=NOW_S)
    assert refused(seal(signer, TYPE, {**GOOD, **change}), keys) is Check.CONTENT


@pytest.mark.parametrize("member", sorted(GOOD))
def test_none_of_its_members_may_be_missing(signer: FileSigner, keys: PublicKeys, member: str) -> None:
    less = {name: value for name, value in GOOD.items() if name != member}
    assert refused(seal(signer, TYPE, less), keys) is Check.CONTENT


@given(st.text(max_size=200))
def test_nonsense_is_refused(keys: PublicKeys, token: str) -> None:
    assert refused(token, keys) is Check.FORM


def test_r7_an_answer_that_is_noted_with_text_is_refused() -> None:
    for changed in (replace(answered(), model="tell me a story"), replace(answered(), request="")):
        with pytest.raises(ValueError, match="cannot say this"):
            changed.record()
    with pytest.raises(ValueError, match="prompt_tokens"):
        replace(answered(), usage=Usage(-1, 0, 0)).record()
    assert {outcome.value for outcome in Outcome} == {"completed", "client_left", "interrupted", "failed"}
