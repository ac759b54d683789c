"""Network namespaces: a machine of its own for every country, as far as the network is concerned.

A country's namespace has a loopback and one link, to the namespace of its callers, which forwards nothing. The link is
also the country's default route: whatever tries to leave comes out there, where it is seen, and gets no further.
Without a route the kernel would end such an attempt before there was a packet to see.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_WORLD = "world"
_OWN = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace that ``ip netns`` knows by name."""

    name: str

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move this thread inside. Sockets that it opens and processes that it starts meanwhile stay there."""
        with open(_OWN, "rb") as before, open(f"/run/netns/{self.name}", "rb") as inside:
            _enter(inside.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def ip(self, *words: str) -> str:
        return _ip("-n", self.name, *words)

    def counter(self, protocol: str, name: str) -> int:
        """One of the kernel's own counters, of ``/proc/net/snmp`` or ``snmp6``."""
        with self.entered():
            if protocol == "Ip6":
                lines = Path("/proc/thread-self/net/snmp6").read_text().splitlines()
                return int(next(line.split()[1] for line in lines if line.startswith(f"Ip6{name}")))
            lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
            names, values = (line.split() for line in lines if line.startswith(f"{protocol}:"))
            return int(values[names.index(name)])


@dataclass(frozen=True, slots=True)
class Land:
    """Where a country stands: its namespace, its link, and the two addresses on that."""

    code: str
    namespace: Namespace
    interface: str
    address: str
    callers: str
    """The callers' end of the link."""


@dataclass(frozen=True, slots=True)
class Apart:
    """Countries with nothing between them but the namespace of their callers."""

    world: Namespace
    lands: dict[str, Land]


def missing() -> str | None:
    """Why namespaces cannot be had here, if they cannot."""
    if os.geteuid() != 0:
        return "network namespaces need root, and this is run by somebody else"
    if shutil.which("ip") is None:
        return "network namespaces need the command `ip` (iproute2), which is not installed"
    try:
        with apart("xx"):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        detail = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        return f"this machine's kernel or container does not allow network namespaces: {detail}"


@contextmanager
def apart(*codes: str) -> Iterator[Apart]:
    """A namespace for each country and one for callers; gone at the end."""
    mark = f"domicile-{os.getpid()}-{threading.get_native_id()}"
    world = Namespace(f"{mark}-{_WORLD}")
    lands = {code: _land(mark, number, code) for number, code in enumerate(codes, start=1)}
    names = [world.name, *(land.namespace.name for land in lands.values())]
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _still(world)
        for land in lands.values():
            _link(world, land)
        yield Apart(world, lands)
    finally:
        for name in names:
            if Path(f"/run/netns/{name}").exists():
                _ip("netns", "delete", name)


def _land(mark: str, number: int, code: str) -> Land:
    # 198.18.0.0/15 is set aside for tests of networks (RFC 2544): nobody's address is in it.
    net = f"198.18.{number}"
    return Land(code, Namespace(f"{mark}-{code}"), f"to-{_WORLD}", f"{net}.2", f"{net}.1")


def _link(world: Namespace, land: Land) -> None:
    there = f"to-{land.code}"
    world.ip(*("link", "add", there, "type", "veth"), *("peer", "name", land.interface, "netns", land.namespace.name))
    for namespace, interface, address in (
        (world, there, land.callers),
        (land.namespace, land.interface, land.address),
    ):
        with namespace.entered():
            # The kernel's own chatter over IPv6 would be the only traffic that is nobody's.
            Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6").write_text("1")
        namespace.ip("address", "add", f"{address}/30", "dev", interface)
        namespace.ip("link", "set", interface, "up")
    land.namespace.ip("route", "add", "default", "via", land.callers)


def _still(world: Namespace) -> None:
    """The callers' namespace hands nothing on."""
    with world.entered():
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True, timeout=20).stdout  # noqa: S607
