"""Forgeries of signed statements. Most are signed with the true key, so that only the check in question can refuse."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode
from pathlib import Path
from string import ascii_letters, digits

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.records.encoding import from_base64url, to_base64url
from serving.records.errors import Check, Rejected
from serving.records.jwks import PublicKeys
from serving.records.jws import LONGEST, opened, seal
from serving.records.signing import FileSigner, KeyFolder

TYPE = "domicile-test+jws"
PAYLOAD: dict[str, object] = {"a": 1, "b": "x"}


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> FileSigner:
    return KeyFolder(Path(tmp_path_factory.mktemp("keys")) / "signing").current()


@pytest.fixture(scope="module")
def keys(signer: FileSigner) -> PublicKeys:
    return PublicKeys([signer.public])


def forged(signer: FileSigner, header: bytes, payload: bytes = orjson.dumps(PAYLOAD)) -> str:
    """A token with this header, signed by the true key."""
    signed = to_base64url(header) + b"." + to_base64url(payload)
    return (signed + b"." + to_base64url(signer.sign(signed))).decode()


def header(signer: FileSigner, **changes: object) -> bytes:
    whole = {"alg": "EdDSA", "typ": TYPE, "kid": signer.kid, **changes}
    return orjson.dumps({name: value for name, value in whole.items() if value is not None})


def refusal(token: str, keys: PublicKeys) -> Check:
    with pytest.raises(Rejected) as refused:
        opened(token, keys, TYPE)
    return refused.value.check


def test_what_is_signed_is_read(signer: FileSigner, keys: PublicKeys) -> None:
    statement = opened(seal(signer, TYPE, PAYLOAD), keys, TYPE)
    assert statement.payload == PAYLOAD
    assert statement.key == signer.public
    assert opened(forged(signer, header(signer)), keys, TYPE).payload == PAYLOAD


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"alg": "none"}, Check.ALGORITHM),
        ({"alg": "None"}, Check.ALGORITHM),
        ({"alg": "HS256"}, Check.ALGORITHM),
        ({"alg": "ES256"}, Check.ALGORITHM),
        ({"alg": "eddsa"}, Check.ALGORITHM),
        ({"alg": ["EdDSA"]}, Check.ALGORITHM),
        ({"alg": None}, Check.ALGORITHM),
        ({"typ": "JWT"}, Check.TYPE),
        ({"typ": "domicile-audit-checkpoint+jws"}, Check.TYPE),
        ({"typ": None}, Check.TYPE),
        ({"crit": ["exp"]}, Check.HEADER),
        ({"crit": []}, Check.HEADER),
        ({"b64": False}, Check.HEADER),
        ({"jku": "https://example.com/jwks.json"}, Check.HEADER),
        ({"x5c": []}, Check.HEADER),
        ({"kid": None}, Check.HEADER),
        ({"kid": "other"}, Check.KEY),
        ({"kid": ["x"]}, Check.KEY),
        ({"kid": 1}, Check.KEY),
    ],
)
def test_a_header_that_is_not_ours_is_refused_though_the_true_key_signed_it(
    signer: FileSigner, keys: PublicKeys, changes: dict[str, object], check: Check
) -> None:
    assert refusal(forged(signer, header(signer, **changes)), keys) is check


def test_alg_none_without_a_signature(signer: FileSigner, keys: PublicKeys) -> None:
    token = forged(signer, header(signer, alg="none")).rpartition(".")[0] + "."
    assert refusal(token, keys) is Check.ALGORITHM
    assert refusal(forged(signer, header(signer)).rpartition(".")[0] + ".", keys) is Check.SIGNATURE


def test_the_public_key_is_no_hmac_secret(signer: FileSigner, keys: PublicKeys) -> None:
    signed = to_base64url(header(signer, alg="HS256")) + b"." + to_base64url(orjson.dumps(PAYLOAD))
    for secret in (signer.public.key.public_bytes_raw(), orjson.dumps(keys.document())):
        mac = to_base64url(hmac.digest(secret, signed, "sha256"))
        assert refusal((signed + b"." + mac).decode(), keys) is Check.ALGORITHM


def test_a_key_that_a_token_brings_along_is_not_asked(signer: FileSigner, keys: PublicKeys, tmp_path: Path) -> None:
    stranger = KeyFolder(tmp_path / "signing").current()
    brought = header(signer, kid=stranger.kid, jwk=stranger.public.document())
    assert refusal(forged(stranger, brought), keys) is Check.HEADER
    assert refusal(forged(stranger, header(stranger)), keys) is Check.KEY
    assert refusal(forged(stranger, header(signer)), keys) is Check.SIGNATURE


@pytest.mark.parametrize("twice", ["alg", "typ", "kid"])
def test_a_name_twice_in_the_header(signer: FileSigner, keys: PublicKeys, twice: str) -> None:
    true = header(signer)
    for added in (b'{"%s":"none",' % twice.encode(), b'{"%s":"EdDSA",' % twice.encode()):
        assert refusal(forged(signer, added + true[1:]), keys) is Check.FORM


@pytest.mark.parametrize("payload", [b'{"a":1,"a":2}', b"[]", b"1", b"", b"{", b'{"a":NaN}', b"\xff", b"[" * 5000])
def test_a_payload_that_has_two_readings_or_none(signer: FileSigner, keys: PublicKeys, payload: bytes) -> None:
    assert refusal(forged(signer, header(signer), payload), keys) is Check.CONTENT


def test_another_spelling_of_the_same_bytes_is_refused(signer: FileSigner, keys: PublicKeys) -> None:
    token = forged(signer, header(signer))
    head, payload, signature = token.split(".")
    # 64 bytes leave four bits of the last character unused: 16 spellings of one signature.
    others = [signature[:-1] + last for last in ascii_letters + digits + "-_" if last != signature[-1]]
    same = [other for other in others if urlsafe_b64decode(other + "==") == urlsafe_b64decode(signature + "==")]
    assert len(same) == 15
    for other in (*same, signature + "=", signature + "==", signature + "\n", " " + signature):
        assert refusal(f"{head}.{payload}.{other}", keys) is Check.FORM


@pytest.mark.parametrize("token", ["", ".", "..", "...", "a.b", "a.b.c.d", "ä.b.c", "\ud800.b.c", "x" * 10**6])
def test_nonsense_is_refused(keys: PublicKeys, token: str) -> None:
    assert refusal(token, keys) is Check.FORM


def test_a_long_one_is_refused_though_it_was_signed(signer: FileSigner, keys: PublicKeys) -> None:
    assert refusal(seal(signer, TYPE, {"a": "x" * LONGEST}), keys) is Check.FORM


@given(st.data())
def test_no_letter_can_be_changed(signer: FileSigner, keys: PublicKeys, data: st.DataObject) -> None:
    token = seal(signer, TYPE, PAYLOAD)
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters().filter(lambda letter: letter != token[place]))
    assert refusal(token[:place] + letter + token[place + 1 :], keys)


@given(st.binary(max_size=100))
def test_base64url_goes_there_and_back(raw: bytes) -> None:
    assert from_base64url(to_base64url(raw)) == raw
