"""Who talks to whom on this machine: the sockets of every process that may be looked at, and whose process it is."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

from serving.cli.inventory import GONE

End = tuple[str, int]
"""An address and a port."""


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket of TCP or UDP. Those of the UNIX domain stay on the machine by nature."""

    pid: int | None
    """Unknown where it is another user's, or nobody's any more."""
    protocol: str
    local: End
    remote: End | None
    """Nobody for one that listens, or that is not connected."""
    listens: bool


def sockets() -> list[Socket]:
    """Every socket of this network namespace, at this moment."""
    return [
        Socket(
            each.pid,
            "tcp" if each.type == socket.SOCK_STREAM else "udp",
            (each.laddr.ip, each.laddr.port),
            (each.raddr.ip, each.raddr.port) if each.raddr else None,
            each.status == psutil.CONN_LISTEN or not each.raddr,
        )
        for each in psutil.net_connections("inet")
        if each.laddr
    ]


def owners(raylets: Mapping[str, int], processes: Iterable[psutil.Process]) -> dict[int, str]:
    """Process id to the country whose it is, and to ``""`` for what a cluster's countries share: its head.

    A country's are its raylet and all below it; what else is ours is the head's.
    """
    found = dict.fromkeys((process.pid for process in processes), "")
    for country, raylet in raylets.items():
        if country:
            found.update(dict.fromkeys(_family(raylet), country))
    return found


def own_addresses() -> frozenset[str]:
    """The addresses of this machine, in this network namespace."""
    return frozenset(
        each.address.partition("%")[0]
        for interface in psutil.net_if_addrs().values()
        for each in interface
        if each.family in (socket.AF_INET, socket.AF_INET6)
    )


def title(pid: int | None) -> str:
    """What a process goes by, short."""
    if pid is None:
        return "a process of another user"
    try:
        process = psutil.Process(pid)
        name: str = (process.cmdline() or [process.name()])[0].rpartition("/")[2] or process.name()
    except GONE:
        return "a process that is gone"
    return name


def _family(pid: int) -> list[int]:
    try:
        parent = psutil.Process(pid)
        return [pid, *(child.pid for child in parent.children(recursive=True))]
    except GONE:
        return []
