from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from serving.records.encoding import to_base64url
from serving.records.errors import CustodyError
from serving.records.jwks import PublicKeys, thumbprint
from serving.records.signing import NOTICE_S, KeyFolder

NOW = 1_770_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    return KeyFolder(tmp_path / "signing")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_made_once_and_for_the_owner_alone(folder: KeyFolder, tmp_path: Path) -> None:
    kid = folder.current().kid
    assert folder.current().kid == KeyFolder(tmp_path / "signing").current().kid == kid
    assert mode(tmp_path / "signing") == 0o700
    assert {path.name: mode(path) for path in (tmp_path / "signing").iterdir()} == {"current.pem": 0o600}
    signature = folder.current().sign(b"message")
    key = folder.public().get(kid)
    assert key is not None
    assert key.verifies(signature, b"message")
    assert not key.verifies(signature, b"massage")


def test_asking_for_public_keys_makes_none(folder: KeyFolder, tmp_path: Path) -> None:
    assert list(folder.public()) == []
    assert not (tmp_path / "signing").exists()


def test_processes_that_make_the_key_at_once_agree(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys; from serving.records.signing import KeyFolder;"
        "print(KeyFolder(pathlib.Path(sys.argv[1])).current().kid)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "signing")], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = {process.communicate(timeout=60)[0] for process in running}
    assert {process.returncode for process in running} == {0}
    assert len(answers) == 1
    assert [path.name for path in (tmp_path / "signing").iterdir()] == ["current.pem"]


def test_rotation_is_seen_by_everybody_and_forgets_no_public_key(folder: KeyFolder, tmp_path: Path) -> None:
    other = KeyFolder(tmp_path / "signing")
    first = other.current().kid
    second = folder.rotate(NOW).kid
    third = folder.rotate(NOW + 5).kid
    assert other.current().kid == third
    ends = {key.kid: key.ends for key in other.public()}
    assert ends == {third: None, first: NOW + NOTICE_S, second: NOW + 5 + NOTICE_S}
    assert len({first, second, third}) == 3


def test_nothing_keeps_the_private_half_of_a_retired_key(folder: KeyFolder, tmp_path: Path) -> None:
    folder.current()
    pem = (tmp_path / "signing" / "current.pem").read_bytes()
    folder.rotate(NOW)
    secret = pem.splitlines()[1]
    files = list((tmp_path / "signing").iterdir())
    assert len(files) == 2
    assert {mode(path) for path in files} == {0o600}
    assert not any(secret in path.read_bytes() for path in files)


def test_a_rotation_cut_short_before_the_new_key_leaves_the_old_one(
    folder: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    kid = folder.current().kid

    def fails() -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("serving.records.signing._new_pem", fails)
        with pytest.raises(CustodyError, match="No space"):
            folder.rotate(NOW)
    assert folder.current().kid == kid
    assert [(key.kid, key.ends) for key in folder.public()] == [(kid, None)]
    assert folder.rotate(NOW).kid != kid


@pytest.mark.parametrize("loose", [0o640, 0o604, 0o660])
def test_a_key_that_others_could_read_is_refused(folder: KeyFolder, tmp_path: Path, loose: int) -> None:
    folder.current()
    (tmp_path / "signing" / "current.pem").chmod(loose)
    with pytest.raises(CustodyError, match="chmod 600"):
        folder.current()
    with pytest.raises(CustodyError, match="chmod 600"):
        KeyFolder(tmp_path / "signing").current()


@pytest.mark.parametrize("loose", [0o750, 0o701, 0o777])
def test_so_is_a_folder_that_others_could_use(tmp_path: Path, loose: int) -> None:
    KeyFolder(tmp_path / "signing").current()
    (tmp_path / "signing").chmod(loose)
    with pytest.raises(CustodyError, match="chmod 700"):
        KeyFolder(tmp_path / "signing").current()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["signing", "signing/current.pem"])
def test_so_is_what_belongs_to_another_user(tmp_path: Path, name: str) -> None:
    KeyFolder(tmp_path / "signing").current()
    os.chown(tmp_path / name, 12345, 12345)
    with pytest.raises(CustodyError, match="another user"):
        KeyFolder(tmp_path / "signing").current()


def other_kind() -> bytes:
    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\n", other_kind()])
def test_what_is_no_ed25519_key_is_refused(folder: KeyFolder, tmp_path: Path, content: bytes) -> None:
    folder.current()
    (tmp_path / "signing" / "current.pem").write_bytes(content)
    with pytest.raises(CustodyError, match="should hold an Ed25519 key"):
        folder.current()


def test_a_place_where_no_key_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CustodyError, match="cannot use"):
        KeyFolder(tmp_path / "file" / "signing").current()


def test_a_jwk_set_says_the_same_when_it_is_read_again(folder: KeyFolder) -> None:
    folder.rotate(NOW)
    published = orjson.dumps(folder.public().document())
    assert PublicKeys.read(published).document() == folder.public().document()
    assert b'"d"' not in published


def test_the_thumbprint_is_rfc_8037_s() -> None:
    # RFC 8037, appendix A.3.
    raw = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert thumbprint(raw) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def jwk(**changes: object) -> dict[str, object]:
    raw = bytes(range(32))
    whole: dict[str, object] = {"kty": "OKP", "crv": "Ed25519", "x": to_base64url(raw).decode(), "kid": thumbprint(raw)}
    return {**whole, **changes}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([jwk(d="AAAA")], "private key"),
        ([jwk(kid="mine")], "not its thumbprint"),
        ([jwk(kid=None)], "not its thumbprint"),
        ([jwk(x="AAAA")], "32 bytes"),
        ([jwk(x=str(jwk()["x"]) + "=")], "canonical"),
        ([jwk(exp="soon")], "exp"),
        ([jwk(), jwk()], "same kid"),
        (["key"], "no object"),
        ({}, "no list"),
    ],
)
def test_a_jwk_set_that_is_refused(keys: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PublicKeys.read(orjson.dumps({"keys": keys}))


def test_a_jwk_set_with_a_name_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        PublicKeys.read(b'{"keys": [], "keys": []}')


@pytest.mark.parametrize("change", [{"kty": "RSA"}, {"crv": "X25519"}, {"use": "enc"}, {"alg": "HS256"}])
def test_keys_for_something_else_are_left_out(change: dict[str, object]) -> None:
    assert list(PublicKeys.read(orjson.dumps({"keys": [jwk(**change)]}))) == []
