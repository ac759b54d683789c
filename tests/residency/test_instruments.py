"""What the proof suite looks with would see what it looks for: packets, the word, differences in time."""

from __future__ import annotations

import socket
import struct
from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest

from tests.proof import netns
from tests.proof.canary import Canary, Search
from tests.proof.capture import Flow, capturing, flow, headers
from tests.proof.timing import PAIRS, compare

MAC = bytes(12)


def tcp(payload: bytes, options: int = 12) -> bytes:
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 6, 0, socket.inet_aton("198.18.1.2"), socket.inet_aton("192.0.2.1")
    )
    return (
        MAC
        + b"\x08\x00"
        + ip
        + struct.pack("!HHIIBBHHH", 1, 2, 0, 0, (20 + options) // 4 << 4, 0, 0, 0, 0)
        + bytes(options)
        + payload
    )


def test_who_speaks_to_whom() -> None:
    assert flow(tcp(b"x")) == Flow("TCP", "198.18.1.2", "192.0.2.1")
    asking = MAC + b"\x08\x06" + bytes(14) + socket.inet_aton("198.18.1.2") + bytes(6) + socket.inet_aton("192.0.2.1")
    assert flow(asking) == Flow("ARP", "198.18.1.2", "192.0.2.1")
    six = (
        MAC
        + b"\x86\xdd"
        + bytes(8)
        + socket.inet_pton(socket.AF_INET6, "fe80::1")
        + socket.inet_pton(socket.AF_INET6, "ff02::2")
    )
    assert flow(six) == Flow("IPv6", "fe80::1", "ff02::2")
    assert flow(MAC + b"\x88\xcc" + bytes(40)).protocol == "Ethernet type 0x88cc"
    assert flow(MAC + b"\x08\x00\x45").protocol == "Ethernet type 0x0800"


@pytest.mark.parametrize("options", [0, 12, 40])
def test_evidence_keeps_headers_and_no_text(options: int) -> None:
    frame = tcp(b"a prompt", options)
    assert frame[: headers(frame)] == frame.removesuffix(b"a prompt")


def test_a_link_is_watched_both_ways_and_a_stray_packet_is_seen(tmp_path: Path) -> None:
    if (why := netns.missing()) is not None:
        pytest.skip(why)
    with netns.apart("ee", "kr") as lands:
        home, abroad = lands.lands["ee"], lands.lands["kr"]
        with capturing(home.namespace, home.interface, tmp_path / "link.pcap") as link:
            said(home, home.callers)
            at_home = {home.address, home.callers}
            assert link.seen().total
            assert not link.seen().foreign(at_home)
            said(home, abroad.address)
            (stray,) = link.seen().foreign(at_home)
            assert (stray.source, stray.destination) == (home.address, abroad.address)
            assert link.seen().lost == 0
    magic, *_, network = struct.unpack("<IHHiIII", (tmp_path / "link.pcap").read_bytes()[:24])
    assert (magic, network) == (0xA1B2C3D4, 1)


def said(land: netns.Land, to: str) -> None:
    with land.namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", (to, 9))


def test_one_country_has_no_way_to_another() -> None:
    if (why := netns.missing()) is not None:
        pytest.skip(why)
    with netns.apart("ee", "kr") as lands:
        home, abroad = lands.lands["ee"], lands.lands["kr"]
        with abroad.namespace.entered(), socket.create_server((abroad.address, 9000)):
            with lands.world.entered():
                socket.create_connection((abroad.address, 9000), 5).close()
            with home.namespace.entered(), pytest.raises(OSError):  # noqa: PT011 - a timeout or a refusal, as kernels differ
                socket.create_connection((abroad.address, 9000), 1).close()


def encode(text: str) -> list[int]:
    return [ord(letter) + 1000 for letter in text]


@pytest.mark.parametrize("form", sorted(Canary("kanaari0123456789abcdef").forms(encode)))
def test_the_word_is_found_in_every_form(tmp_path: Path, form: str) -> None:
    canary = Canary.fresh()
    search = Search(canary, encode)
    hidden = bytes(5000) + b"before" + canary.forms(encode)[form] + b"behind"
    (tmp_path / "a.log").write_bytes(hidden)
    (tmp_path / "b.log").write_bytes(b"nothing")
    found = search.files([tmp_path], since=0)
    assert (found.places, found.bytes) == (2, len(hidden) + 7)
    (find,) = found.finds
    assert (find.where, find.form) == (str(tmp_path / "a.log"), form)


def test_as_base64_it_is_found_wherever_it_begins() -> None:
    canary = Canary.fresh()
    for before in range(7):
        text = b64encode(b"x" * before + canary.via("prompt").encode() + b" and so on")
        assert Search(canary, encode).text("here", text).finds


def test_it_is_found_in_a_file_s_name_and_where_two_pieces_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.proof.canary.CHUNK", 1000)
    canary = Canary.fresh()
    (tmp_path / canary.via("name")).write_bytes(b"")
    (tmp_path / "long").write_bytes(b"x" * 990 + canary.core.encode() + b"x" * 2000)
    assert {find.where for find in Search(canary, encode).files([tmp_path], 0).finds} == {
        "a file's name",
        str(tmp_path / "long"),
    }


def test_what_was_written_before_is_left_alone(tmp_path: Path) -> None:
    canary = Canary.fresh()
    (tmp_path / "old").write_text(canary.core)
    assert Search(canary, encode).files([tmp_path], since=2e9).places == 0


def times(seed: int, shift: float) -> tuple[list[float], list[float]]:
    """Log-normal, as times on a busy machine are; the first kind shorter by a share of the spread."""
    drawn = np.random.default_rng(seed)
    return list(np.exp(drawn.normal(-shift, 1, PAIRS) * 0.3)), list(np.exp(drawn.normal(0, 1, PAIRS) * 0.3))


def test_kinds_that_are_alike_are_found_alike() -> None:
    """The power that the report states."""
    alike = [compare(*times(seed, 0.0)) for seed in range(100)]
    assert sum(each.alike for each in alike) >= 95
    assert sum(each.different for each in alike) <= 1


def test_a_difference_that_a_listener_could_use_is_not_called_alike() -> None:
    # Shorter by 0.6 of the spread is right guesses of two in three.
    told = [compare(*times(seed, 0.6)) for seed in range(40)]
    assert sum(each.alike for each in told) <= 2
    assert sum(each.different for each in told) >= 30


def test_too_few_times_show_nothing() -> None:
    one, two = times(1, 0.0)
    assert not compare(one[:12], two[:12]).alike
    with pytest.raises(ValueError, match="pairs"):
        compare(one, two[:-1])
