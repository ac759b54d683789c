"""R2, R5 and R8 on a cell that really runs: silent, at home, and stopped for as long as a stranger is in it.

In this order: each leaves the cell as it found it.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

import httpx
import psutil
import pytest

from serving.cli.cluster import LocalCluster
from tests.residency.silence import loud
from tests.running import DOMICILE, MODEL, RunningCountry, RunningHouse, standing

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
PATIENCE_S = 120

Found = TypeVar("Found")


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    with standing(tmp_path_factory.mktemp("cell"), "ee", isolation="cell") as house:
        yield house


@pytest.fixture(scope="module")
def ee(cell: RunningHouse) -> RunningCountry:
    return cell.countries["ee"]


def test_r2_a_cell_that_is_alone_serves(cell: RunningHouse, ee: RunningCountry) -> None:
    assert asked(ee).status_code == 200
    assert cell.domicile("status").code == 0


def test_r8_every_process_of_it_is_silent_and_offline(cell: RunningHouse) -> None:
    processes = cell.processes()
    titles = " ".join(" ".join(process.cmdline()) for process in processes)
    for expected in ("gcs_server", "raylet", "ray::DashboardAgent", "ray::ServeReplica:domicile-ee:gateway"):
        assert expected in titles
    for expected in ("VLLM::EngineCore", "VLLM::Worker", "ray::ServeController"):
        assert expected in titles
    assert {f"{process.pid} {process.cmdline()[0]}": loud(process) for process in processes if loud(process)} == {}


def test_r8_so_is_a_load_test(cell: RunningHouse) -> None:
    with subprocess.Popen([DOMICILE, "loadtest", "steady", "--country", "ee"], env=cell.environment) as command:
        family = psutil.Process(command.pid)
        try:
            assert loud(until(lambda: generator_below(family))) == {}
        finally:
            for process in (*family.children(recursive=True), family):
                process.kill()


def test_r8_it_talks_to_itself_only(cell: RunningHouse) -> None:
    seen = cell.domicile("doctor", "--egress", "ee", "--watch", "2", "--json")
    assert seen.code == 0, seen.out
    document = json.loads(seen.out)
    assert {one["peer"] for one in document["connections"]} <= {"own", "head", "loopback"}
    checks = {one["check"]: one for one in document["checks"]}
    assert (checks["peers"]["verdict"], checks["silence"]["verdict"]) == ("ok", "ok")
    # Ray Serve alone opens a port on every interface, guarded by the cluster's token, and has no option not to.
    outside = [one for one in document["listeners"] if not one["at_home"]]
    assert {one["process"].partition(":domicile")[0] for one in outside} <= {"ray::ServeReplica"}
    assert all(one["local"].startswith("[::]:") for one in outside)


def test_r5_a_foreign_node_stops_it_and_its_leaving_starts_it_again(cell: RunningHouse, ee: RunningCountry) -> None:
    cluster = LocalCluster(cell.settings)
    record = cluster.record()
    assert record is not None
    cluster.finish(cluster.start_raylet(record.address, "kr", [0]), "a node of kr")
    try:
        refused = until(lambda: answer if (answer := asked(ee)).status_code != 200 else None)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "foreign_node_in_cell")
        assert "KR" in refused.json()["error"]["message"]
        # The replica may have seen it first. The gateway looks every few seconds.
        ready = until(lambda: answer if (answer := httpx.get(f"{ee.address}/readyz")).status_code != 200 else None)
        assert (ready.status_code, ready.json()["status"]) == (503, "stopped")
        assert ready.json()["reason"].endswith("labelled kr")
        status = cell.domicile("status", "--country", "ee", "--json")
        assert status.code == 1
        assert json.loads(status.out)["countries"][0]["message"] == ready.json()["reason"]
        up = cell.domicile("up", "--country", "ee")
        assert up.code == 1
        assert "ee is a cell" in up.err
    finally:
        cluster.stop_raylets(["kr"])
    assert set(ee.wait_until_serving(PATIENCE_S)) <= {200, 503}
    assert httpx.get(f"{ee.address}/readyz").status_code == 200


def asked(country: RunningCountry) -> httpx.Response:
    with country.http() as client:
        return client.post("/v1/chat/completions", json=BODY, headers={"accept-language": "en"})


def generator_below(command: psutil.Process) -> psutil.Process | None:
    """The process that makes the load: not the one before it, which only reads the scenario and is soon gone."""
    for child in command.children():
        with suppress(psutil.NoSuchProcess):
            if {"-m", "loadtests"} <= set(line := child.cmdline()) and "describe" not in line:
                return child
    return None


def until(look: Callable[[], Found | None]) -> Found:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError("it never happened")
