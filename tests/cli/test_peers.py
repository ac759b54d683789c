"""Whom a country's processes talk to, judged without looking at any machine."""

from __future__ import annotations

import pytest

from serving.cli.peers import Opening, Peer, openings, talks
from serving.cli.sockets import End, Socket
from tenants.country import Country
from tests.tenants.test_country import MINIMAL

EE, KR, HEAD, OTHER = 11, 22, 33, 44
OWNERS = {EE: "ee", EE + 1: "ee", KR: "kr", HEAD: ""}
HERE = frozenset({"127.0.0.1", "::1", "192.0.2.2"})


def country(*networks: str) -> Country:
    return Country.model_validate({**MINIMAL, "residency": {"networks": list(networks)}})


def tcp(pid: int | None, local: End, remote: End | None) -> Socket:
    return Socket(pid, "tcp", local, remote, remote is None)


def both(one: int, other: int | None, host: str = "127.0.0.1") -> list[Socket]:
    """A connection whose two ends are on this machine."""
    return [tcp(one, (host, 40000), (host, 50000)), tcp(other, (host, 50000), (host, 40000))]


def peers(place: Country, *seen: Socket) -> list[Peer]:
    return [each.peer for each in talks(place, seen, OWNERS, HERE)]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "192.0.2.2"])
@pytest.mark.parametrize(
    ("other", "peer"),
    [(EE + 1, Peer.OWN), (HEAD, Peer.HEAD), (KR, Peer.FOREIGN), (OTHER, Peer.LOOPBACK), (None, Peer.LOOPBACK)],
)
def test_on_this_machine_it_is_the_other_process_that_counts(host: str, other: int | None, peer: Peer) -> None:
    found = talks(country(), both(EE, other, host), OWNERS, HERE)
    assert found[0].peer is peer
    assert len(found) == (2 if other == EE + 1 else 1)
    assert found[0].other == other
    if peer is Peer.FOREIGN:
        assert found[0].country == "kr"


def test_who_only_listens_is_found_by_the_port() -> None:
    """An end that has not accepted yet, or that nobody may look at, has a listener."""
    asking = tcp(EE, ("127.0.0.1", 40000), ("127.0.0.1", 9410))
    assert peers(country(), asking, tcp(KR, ("0.0.0.0", 9410), None)) == [Peer.FOREIGN]
    assert peers(country(), asking, tcp(KR, ("0.0.0.0", 9411), None)) == [Peer.LOOPBACK]


@pytest.mark.parametrize("remote", ["10.20.1.1", "::ffff:10.20.1.1", "2001:db8:20::7"])
def test_the_country_s_networks_are_at_home(remote: str) -> None:
    one = tcp(EE, ("10.20.0.2", 40000), (remote, 4318))
    assert peers(country("10.20.0.0/16", "2001:db8:20::/48"), one) == [Peer.NETWORK]
    assert peers(country(), one) == [Peer.ABROAD]
    assert talks(country(), [one], OWNERS, HERE)[0].remote.endswith(":4318")


def test_callers_come_from_anywhere_to_the_gateway_s_port_only() -> None:
    caller = ("203.0.113.9", 51000)
    assert peers(country(), tcp(EE, ("192.0.2.2", 9233), caller)) == [Peer.CALLER]
    assert peers(country(), tcp(EE, ("192.0.2.2", 9234), caller)) == [Peer.ABROAD]
    assert peers(country(), Socket(EE, "udp", ("192.0.2.2", 9233), caller, False)) == [Peer.ABROAD]


def test_what_is_not_the_country_s_is_not_told() -> None:
    abroad = ("203.0.113.9", 443)
    assert peers(country(), tcp(KR, ("192.0.2.2", 1), abroad), tcp(None, ("192.0.2.2", 2), abroad)) == []
    assert peers(country(), tcp(HEAD, ("192.0.2.2", 3), abroad)) == []


@pytest.mark.parametrize(
    ("local", "at_home"),
    [
        (("127.0.0.1", 5000), True),
        (("::1", 5000), True),
        (("10.20.0.2", 5000), True),
        (("192.0.2.2", 5000), False),
        (("0.0.0.0", 5000), False),
        (("::", 5000), False),
        (("0.0.0.0", 9233), True),
    ],
)
def test_where_a_country_listens(local: End, at_home: bool) -> None:
    (found,) = openings(country("10.20.0.0/16"), [tcp(EE, local, None), tcp(KR, ("0.0.0.0", 1), None)], OWNERS)
    assert found.at_home is at_home
    assert isinstance(found, Opening)
