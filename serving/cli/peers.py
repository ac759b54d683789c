"""Who is at the other end of a country's connections, and whether it may be. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from enum import StrEnum

from serving.cli.sockets import End, Socket
from tenants.country import WILDCARDS, Country
from tenants.networks import plain, within


class Peer(StrEnum):
    """Where a country's packets go. The last two are where they must not."""

    OWN = "own"
    """Another process of the country."""
    HEAD = "head"
    """The head of the cluster, which the countries of a shared one have in common."""
    LOOPBACK = "loopback"
    """Another program of this machine."""
    NETWORK = "network"
    """In ``residency.networks``."""
    CALLER = "caller"
    """From anywhere, to the gateway's own port."""
    FOREIGN = "foreign"
    """A process of another country."""
    ABROAD = "abroad"
    """Anywhere else."""


WRONG = frozenset({Peer.FOREIGN, Peer.ABROAD})


@dataclass(frozen=True, slots=True)
class Talk:
    """A connection of one of a country's processes."""

    pid: int
    protocol: str
    local: str
    remote: str
    peer: Peer
    country: str
    """Whose process the other end is, where it is a country's of this machine."""
    other: int | None
    """The process at the other end, where it is on this machine and may be looked at."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Where one of a country's processes accepts what comes."""

    pid: int
    protocol: str
    local: str
    at_home: bool
    """On loopback or in the country's networks, or it is the gateway's, where anybody may call."""


def talks(country: Country, seen: Iterable[Socket], owners: Mapping[int, str], own_addresses: Set[str]) -> list[Talk]:
    """Every connection of the country's processes among ``seen``, judged."""
    all_seen = list(seen)
    ends = {(each.local, each.remote): each.pid for each in all_seen if each.remote is not None}
    listeners = {each.local[1]: each.pid for each in all_seen if each.listens}
    found = []
    for each in all_seen:
        if each.pid is None or each.remote is None or owners.get(each.pid) != country.code:
            continue
        other = ends.get((each.remote, each.local))
        if other is None and _here(each.remote, own_addresses):
            other = listeners.get(each.remote[1])
        whose = owners.get(other) if other is not None else None
        peer = _peer(country, each, whose, own_addresses)
        found.append(
            Talk(each.pid, each.protocol, _written(each.local), _written(each.remote), peer, whose or "", other)
        )
    return found


def openings(country: Country, seen: Iterable[Socket], owners: Mapping[int, str]) -> list[Opening]:
    """Where the country's processes listen."""
    return [
        Opening(each.pid, each.protocol, _written(each.local), _at_home(country, each))
        for each in seen
        if each.pid is not None and each.listens and owners.get(each.pid) == country.code
    ]


def _peer(country: Country, one: Socket, whose: str | None, own_addresses: Set[str]) -> Peer:
    assert one.remote is not None
    if whose is not None:
        return {country.code: Peer.OWN, "": Peer.HEAD}.get(whose, Peer.FOREIGN)
    if _here(one.remote, own_addresses):
        return Peer.LOOPBACK
    if within(one.remote[0], country.residency.networks):
        return Peer.NETWORK
    return Peer.CALLER if one.protocol == "tcp" and one.local[1] == country.port else Peer.ABROAD


def _here(end: End, own_addresses: Set[str]) -> bool:
    return within(end[0], ()) or str(plain(end[0])) in own_addresses


def _at_home(country: Country, one: Socket) -> bool:
    host, port = one.local
    gateways = one.protocol == "tcp" and port == country.port
    return gateways or (host not in WILDCARDS and within(host, country.residency.networks))


def _written(end: End) -> str:
    host, port = end
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
