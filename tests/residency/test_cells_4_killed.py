"""The journey, fourth part: what serves is killed, piece by piece, and the other country does not notice (R2, R5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from tests.proof.cells import Cells
from tests.proof.within import raylet, replicas, work

pytestmark = [pytest.mark.prove, pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]

Record = Callable[[str, object], None]
RECOVERY_S = 240
CHAT = "/v1/chat/completions"
LONG = {"max_tokens": 3000, "ignore_eos": True, "stream": True}


def test_r5_a_country_without_replicas_answers_503_and_the_other_does_not_notice(
    cells: Cells, hello: dict[str, Any], record_property: Record
) -> None:
    home, abroad = cells.cells["ee"], cells.cells["kr"]
    before, processes = work(abroad), {one.pid for one in abroad.house.processes()}
    killed = replicas(home)
    asked: dict[str, Any] = {"json": {**hello, **LONG}}
    with cells.world.entered(), cells.countries["ee"].http() as client, client.stream("POST", CHAT, **asked) as answer:
        lines = (line for line in answer.iter_lines() if line)
        next(lines)
        for pid in killed:
            psutil.Process(pid).kill()
        assert list(lines)[-1].startswith('data: {"error"')
    refused = down_until_served(cells, hello)
    assert refused
    assert work(abroad) == before
    assert {one.pid for one in abroad.house.processes()} == processes
    assert set(replicas(home)).isdisjoint(killed)
    record_property("model processes killed (SIGKILL)", len(killed))
    record_property("requests while the country was down, all answered 503 by itself", refused)
    record_property("of its keys refused by the other country meanwhile", refused)
    record_property("work that the other country's engine did meanwhile", 0)


def down_until_served(cells: Cells, hello: dict[str, Any]) -> int:
    """Ask Estonia once a second until it answers. Returns how often it said that it cannot."""
    refused = 0
    while (response := cells.ask("ee", **hello)).status_code != 200:
        assert response.status_code == 503
        assert response.headers["x-domicile-country"] == "ee"
        assert cells.ask("kr", key=cells.countries["ee"].key, **hello).status_code == 401
        refused += 1
        assert refused < RECOVERY_S
        time.sleep(1)
    return refused


def test_r5_a_gateway_that_is_killed_comes_back_for_its_own_callers(
    cells: Cells, hello: dict[str, Any], record_property: Record
) -> None:
    before = work(cells.cells["ee"])
    gateway = cells.cells["kr"].house.actor("kr", "gateway")
    gateway.kill()
    gateway.wait(10)
    for _ in range(RECOVERY_S):
        with suppress(httpx.TransportError):
            if cells.ask("kr", **hello).status_code == 200:
                break
        time.sleep(0.5)
    assert cells.ask("kr", **hello).status_code == 200
    assert work(cells.cells["ee"]) == before
    record_property("gateways killed (SIGKILL)", 1)


def test_r2_a_country_without_a_node_is_not_served_until_it_has_one_again(
    cells: Cells, hello: dict[str, Any], record_property: Record
) -> None:
    """The raylet is killed: the only place that carries the country's label."""
    cell = cells.cells["kr"]
    before = work(cells.cells["ee"])
    psutil.Process(raylet(cell)).kill()
    went_down(cells, hello)
    assert cell.domicile("status", "--json").code == 1
    assert work(cells.cells["ee"]) == before
    cell.up()
    assert set(cells.wait_until_serving("kr", RECOVERY_S)) <= {200, 503}
    assert work(cells.cells["ee"]) == before
    record_property("nodes killed (SIGKILL)", 1)
    record_property("work that the other country's engine did meanwhile", 0)


def went_down(cells: Cells, hello: dict[str, Any]) -> None:
    """Korea's address answers nobody any more, within half a minute."""
    for _ in range(60):
        try:
            assert cells.ask("kr", **hello).status_code in (200, 503)
        except httpx.TransportError:
            return
        time.sleep(0.5)
    pytest.fail("it goes on serving without a node")
