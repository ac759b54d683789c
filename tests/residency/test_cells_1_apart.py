"""The journey, first part: two countries apart, each a cell with real Ray and real vLLM, in service and under attack.

The ``test_cells_…`` files are one story and run in their order. Every link is watched from before the countries start
until after they have ended, and requests carry a word that must not be found anywhere afterwards.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving.replicas.claim import HEADER, CellKey
from tests.proof.cells import ABROAD, PORT, Cells
from tests.proof.within import at_replica, claim, frames, key_of, work
from tests.running import DOMICILE, MODEL, ran

pytestmark = [pytest.mark.prove, pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]

Record = Callable[[str, object], None]
BOTH = pytest.mark.parametrize("code", ["ee", "kr"])
ASKED = 10
RECEIPTS = 3


@BOTH
def test_r1_callers_are_served_by_the_country_of_their_key(
    cells: Cells, hello: dict[str, Any], code: str, record_property: Record
) -> None:
    before = {each: work(cell) for each, cell in cells.cells.items()}
    for _ in range(ASKED):
        response = cells.ask(code, **hello)
        assert response.status_code == 200, response.text
        assert response.headers["x-domicile-country"] == code
    after = {each: work(cell) for each, cell in cells.cells.items()}
    assert after[code] != before[code]
    assert after[ABROAD[code]] == before[ABROAD[code]]
    record_property("answers from the key's own country", ASKED)
    record_property("work that the other country's engine did meanwhile", 0)


@BOTH
def test_r1_nothing_of_a_country_but_its_gateway_can_be_reached(
    cells: Cells, code: str, record_property: Record
) -> None:
    cell = cells.cells[code]
    with cell.inside():
        ports = {port for process in cell.house.processes() for port in listening(process)} - {PORT}
    assert len(ports) > 2
    reached = []
    for port in ports:
        with cells.world.entered(), suppress(OSError):
            socket.create_connection((cell.land.address, port), 2).close()
            reached.append(port)
    assert reached == []
    record_property("private ports that callers tried, and could not connect to", len(ports))


def listening(process: psutil.Process) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        return [each.laddr.port for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    return []


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
def test_r3_a_key_at_the_wrong_country_is_refused_before_its_body_is_sent(
    cells: Cells, expect: str, record_property: Record
) -> None:
    abroad = cells.cells["kr"]
    before = work(abroad)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {abroad.land.address}:{PORT}\r\n"
        f"Authorization: Bearer {cells.countries['ee'].key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: 4000000\r\n{expect}\r\n"
    )
    with cells.world.entered(), socket.create_connection((abroad.land.address, PORT), 20) as caller:
        caller.sendall(head.encode())
        answer = b""
        while not answer.endswith(b"}}"):
            received = caller.recv(1 << 16)
            assert received, answer
            answer += received
    assert answer.startswith(b"HTTP/1.1 401 ")
    error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] == "incorrect_hostname"
    assert cells.countries["ee"].base_url in error["message"]
    assert work(abroad) == before
    record_property("bytes that were announced", 4_000_000)
    record_property("bytes that were sent before the refusal came", 0)


@BOTH
def test_r4_a_replica_refuses_whoever_goes_past_the_gateway(
    cells: Cells, hello: dict[str, Any], code: str, record_property: Record
) -> None:
    cell, other = cells.cells[code], cells.cells[ABROAD[code]]
    own, foreign = key_of(cell), key_of(other)
    version, payload, mac = own.sign(claim(code)).split(".")
    _, somebody_else, _ = own.sign(replace(claim(code), organisation="umbra")).split(".")
    attempts = {
        "no claim": None,
        "nonsense": "v1.a.b",
        "an API key of the country": cells.countries[code].key,
        "a forged signature": CellKey(bytes(32)).sign(claim(code)),
        "another organisation under a true signature": f"{version}.{somebody_else}.{mac}",
        "no signature": f"none.{payload}.",
        "the other country's claim": foreign.sign(claim(other.code)),
        "the other country's key, this country's name": foreign.sign(claim(code)),
        "this country's key, the other country's name": own.sign(claim(other.code)),
        "expired": own.sign(claim(code, lifetime_s=-1)),
        "from the future": own.sign(claim(code, lifetime_s=3600)),
        "for another path": own.sign(claim(code, "/v1/responses")),
    }
    before = work(cell)
    seen = {name: at_replica(cell, token, hello).status_code for name, token in attempts.items()}
    assert seen == dict.fromkeys(attempts, 403)
    assert work(cell) == before
    record_property("ways past the gateway that were tried, and refused", len(attempts))


@BOTH
def test_r4_a_claim_taken_off_the_wire_is_good_for_nothing(
    cells: Cells, hello: dict[str, Any], code: str, record_property: Record
) -> None:
    """A genuine claim, read from the country's own loopback while its gateway used it."""
    cell = cells.cells[code]
    passing = frames(cell.land.namespace)
    next(passing)
    assert cells.ask(code, **hello).status_code == 200
    mark = f"{HEADER}: ".encode()
    taken = next(frame for frame in passing if mark in frame).partition(mark)[2].partition(b"\r\n")[0].decode()
    assert key_of(cell).verify(taken).country == code
    before = work(cell)
    assert [at_replica(cell, taken, hello).status_code for _ in range(3)] == [403] * 3
    assert at_replica(cells.cells[ABROAD[code]], taken, hello).status_code == 403
    assert work(cell) == before
    record_property("genuine claims sent again, at home and abroad, and refused", 4)


def test_r6_no_process_of_a_country_holds_anything_of_the_other(cells: Cells, record_property: Record) -> None:
    looked_at = 0
    for code, cell in cells.cells.items():
        theirs = str(cells.cells[ABROAD[code]].folder)
        for process in cell.house.processes():
            with suppress(psutil.NoSuchProcess):
                held = [file.path for file in process.open_files()]
                with cell.inside():
                    held += [str(unix.laddr) for unix in process.net_connections("unix")]
                held += [*process.environ().values(), *process.cmdline(), process.cwd()]
                assert not [each for each in held if theirs in each], process
                looked_at += 1
    assert looked_at > 10
    record_property("processes looked at", looked_at)


def test_r8_every_process_is_told_to_be_silent(cells: Cells, record_property: Record) -> None:
    switches = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    asked = 0
    for code, cell in cells.cells.items():
        for deployment in ("gateway", MODEL):
            actor = cell.house.actor(code, deployment)
            for process in (actor, *actor.children(recursive=True)):
                environment = process.environ()
                assert {name: environment.get(name) for name in switches} == switches
                asked += 1
    record_property("serving processes whose switches were read", asked)


@BOTH
def test_r10_a_stranger_verifies_an_answer_s_receipt(
    cells: Cells, hello: dict[str, Any], code: str, receipts: Path, record_property: Record
) -> None:
    """With the program, the receipt and the country's public keys, on another network and with no file of its."""
    cell, jwks = cells.cells[code], receipts / f"{code}.jwks"
    jwks.write_bytes(cells.get(code, "/.well-known/jwks.json").content)
    stranger = {**cell.house.environment, "DOMICILE_HOME": str(receipts / "empty")}
    for _ in range(RECEIPTS):
        answer = cells.ask(code, **hello)
        file = receipts / f"{code}-{answer.headers['x-domicile-receipt']}"
        file.write_bytes(cells.get(code, f"/v1/receipts/{answer.headers['x-domicile-receipt']}").content)
        with cells.world.entered():
            told = ran(DOMICILE, "receipt", "verify", str(file), "--jwks", str(jwks), "--json", environment=stranger)
        assert told.code == 0, told.out + told.err
        said: Any = told.json()["receipt"]
        assert (said["country"], said["request"]) == (code, answer.headers["x-request-id"])
    record_property("receipts that a stranger fetched and verified", RECEIPTS)
