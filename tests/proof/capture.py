"""What passes over a link: every packet counted by who speaks to whom, and its headers kept as evidence.

The file is a pcap that any analyser opens. It holds headers and no payload, so that it is not itself the place where
prompts end up (R7); of packets that ought not to be there, more is kept.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.proof.netns import Namespace

LONGEST_FILE = 16 * 1024 * 1024
ODD = 256
"""Bytes that are kept of a packet that is not TCP: the name that a stray look-up asked for is among them."""
_ALL, _IPV4, _ARP, _IPV6, _TCP = 0x0003, 0x0800, 0x0806, 0x86DD, 6
_SOL_PACKET, _PACKET_STATISTICS, _RCVBUFFORCE = 263, 6, 33
_QUEUE = 16 * 1024 * 1024
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Flow:
    """Who speaks to whom."""

    protocol: str
    source: str
    destination: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What passed so far."""

    packets: Counter[Flow]
    lost: int
    """Packets that passed while the reader was behind: of those nothing is known."""

    @property
    def total(self) -> int:
        return sum(self.packets.values())

    def foreign(self, home: Set[str]) -> Counter[Flow]:
        """Packets with an address at either end that is not among ``home``."""
        return Counter(
            {flow: many for flow, many in self.packets.items() if not {flow.source, flow.destination} <= home}
        )


class Capture:
    """Reads a link until it is told to stop."""

    def __init__(self, packets: socket.socket, file: BinaryIO) -> None:
        self._socket = packets
        self._file = file
        self._flows: Counter[Flow] = Counter()
        self._lost = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        # pcap 2.4, microseconds, Ethernet.
        self._file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def seen(self) -> Seen:
        """Everything up to now."""
        time.sleep(2 * _POLL_S)
        with self._lock:
            _, dropped = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
            self._lost += dropped
            return Seen(Counter(self._flows), self._lost)

    def _read(self) -> None:
        self._socket.settimeout(_POLL_S)
        while not self._ended.is_set():
            try:
                frame = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            with self._lock:
                self._flows[flow(frame)] += 1
            self._keep(frame)

    def _keep(self, frame: bytes) -> None:
        if self._file.tell() > LONGEST_FILE:
            return
        kept = frame[: headers(frame)]
        whole, part = divmod(time.time_ns() // 1000, 10**6)
        self._file.write(struct.pack("<IIII", whole, part, len(kept), len(frame)) + kept)


@contextmanager
def capturing(namespace: Namespace, interface: str, file: Path) -> Iterator[Capture]:
    """Watch an interface, both directions, for as long as the block runs."""
    with namespace.entered():
        # Without a protocol it hears nothing until it is bound, so it never hears another interface.
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        packets.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _QUEUE)
        packets.bind((interface, _ALL))
    with packets, file.open("wb") as out:
        capture = Capture(packets, out)
        capture.start()
        try:
            yield capture
        finally:
            capture.stop()


def flow(frame: bytes) -> Flow:
    """Who speaks to whom in an Ethernet frame."""
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind == _IPV4 and len(frame) >= 34:
        protocol = {1: "ICMP", _TCP: "TCP", 17: "UDP"}.get(frame[23], f"IP protocol {frame[23]}")
        return Flow(protocol, socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34]))
    if kind == _ARP and len(frame) >= 42:
        return Flow("ARP", socket.inet_ntoa(frame[28:32]), socket.inet_ntoa(frame[38:42]))
    if kind == _IPV6 and len(frame) >= 54:
        family = socket.AF_INET6
        return Flow("IPv6", socket.inet_ntop(family, frame[22:38]), socket.inet_ntop(family, frame[38:54]))
    return Flow(f"Ethernet type {kind:#06x}", frame[6:12].hex(":"), frame[:6].hex(":"))


def headers(frame: bytes) -> int:
    """How much of a frame is kept: of TCP its headers, of anything else its beginning."""
    (kind,) = struct.unpack_from("!H", frame, 12)
    if kind != _IPV4 or len(frame) < 34 or frame[23] != _TCP:
        return ODD
    begins = 14 + 4 * (frame[14] & 0x0F)
    return begins + 4 * (frame[begins + 12] >> 4) if len(frame) > begins + 12 else begins
