"""What an attacker inside a country could do, and what its operator can see there."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx

from serving.engine.port import METRICS
from serving.replicas.claim import HEADER, CellKey, Claim
from serving.types import Endpoint, ServiceClass
from tenants.country import METRICS_PORTS
from tenants.ground import CountryGround
from tenants.registry import load_country
from tests.proof.cells import Cell
from tests.proof.netns import Namespace
from tests.running import MODEL

WORK = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total")


def key_of(cell: Cell) -> CellKey:
    return CellKey(CountryGround(cell.house.settings.country(cell.code), cell.code).cell_key())


def claim(country: str, path: str = Endpoint.CHAT.value, lifetime_s: float = 20.0) -> Claim:
    expiry = time.time() + lifetime_s
    return Claim(country, "demo", f"req_{os.urandom(16).hex()}", ServiceClass.STANDARD, path, expiry, expiry)


def at_replica(cell: Cell, token: str | None, asked: object, path: str = Endpoint.CHAT.value) -> httpx.Response:
    """What a country's replica answers to somebody who stands in the country and has found its private port."""
    headers = {} if token is None else {HEADER: token}
    with cell.inside():
        return httpx.post(f"{cell.house.replica_url(cell.code)}{path}", json=asked, headers=headers, timeout=60)


def told(cell: Cell) -> dict[str, bytes]:
    """All that a country tells its operators: figures of engine and gateways, and what its collector was sent."""
    first = load_country(cell.house.settings.countries / cell.code).metrics_port
    pages = {}
    with cell.inside():
        for port in range(first, first + METRICS_PORTS):
            with suppress(httpx.ConnectError):
                pages[f"gateway's figures at {port}"] = httpx.get(f"http://127.0.0.1:{port}/metrics").content
    return {**pages, "engine's figures": measurements(cell).encode(), "collector": cell.collector.everything()}


def measurements(cell: Cell) -> str:
    """Everything that a country's engine tells of itself, read as its operator reads it."""
    token = key_of(cell).sign(claim(cell.code, METRICS))
    with cell.inside():
        told = httpx.get(f"{cell.house.replica_url(cell.code)}{METRICS}", headers={HEADER: token}, timeout=60)
    assert told.status_code == 200
    return told.text


def work(cell: Cell) -> dict[str, float]:
    """What a country's engine has done since it started, by its own counters."""
    lines = [line.rpartition(" ") for line in measurements(cell).splitlines() if line.startswith(WORK)]
    return {name: float(value) for name, _, value in lines}


def replicas(cell: Cell) -> list[int]:
    """Process ids, as ``domicile status`` tells them."""
    (one,) = json.loads(cell.domicile("status", "--json").out)["countries"]
    pids: list[int] = one["processes"][MODEL]
    return pids


def raylet(cell: Cell) -> int:
    """The process id of a country's only node."""
    (one,) = json.loads(cell.domicile("status", "--json").out)["countries"]
    (pid,) = one["raylets"]
    return int(pid)


def frames(namespace: Namespace) -> Iterator[bytes]:
    """What passes over a country's own loopback. It is heard from the first ``next`` on, which gives nothing yet."""
    with namespace.entered():
        loopback = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        loopback.bind(("lo", 0x0003))
    with loopback:
        loopback.settimeout(10)
        yield b""
        while True:
            yield loopback.recv(1 << 16)
