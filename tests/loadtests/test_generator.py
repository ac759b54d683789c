"""The load generator as it is run: Locust in a process of its own, against the stub."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from loadtests import schedule
from loadtests.client.order import Order, capacity_schedule, read_capacity
from loadtests.record import Kind, Outcome, Run
from loadtests.scenario import load_scenario
from loadtests.targets import read_targets
from tenants.errors import TenantError

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def stub(*options: str) -> tuple[subprocess.Popen[bytes], int]:
    command = [sys.executable, "-m", "loadtests.stub", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["port"]


def write(folder: Path, ports: dict[str, int], *traffic: dict[str, Any], duration_s: float = 1.5) -> list[str]:
    """A scenario and its targets, as options."""
    streams = [{"organisations": "acme", "lengths": {"prompt": 20, "output": 5}, **one} for one in traffic]
    scenario = {
        "name": "small",
        "title": "Small",
        "countries": ["ee"],
        "drain_s": 10,
        "capacity": {"users": 3, "duration_s": 1},
        "organisations": [{"id": "acme"}],
        "phases": [{"name": "calm", "duration_s": duration_s, "traffic": streams}],
    }
    (folder / "scenario.yaml").write_text(json.dumps(scenario))
    countries = [
        {
            "code": code,
            "base_url": f"http://127.0.0.1:{port}/v1",
            "model": "stub",
            "organisations": [{"id": "acme", "key": f"sk-{code}"}],
        }
        for code, port in ports.items()
    ]
    targets = folder / "targets.json"
    targets.write_text(json.dumps({"sides": [{"name": "domicile", "countries": countries}]}))
    targets.chmod(0o600)
    files = ["--scenario", str(folder / "scenario.yaml"), "--targets", str(targets)]
    return [*files, "--run-folder", str(folder / "run")]


def locust(*options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtests/locustfile.py"), "--only-summary"]
    return subprocess.Popen(
        [*command, *options],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def read(folder: Path) -> Run:
    """What was written. The plan is written by who starts the generator, which here is nobody."""
    (folder / "run" / "plan.json").write_bytes(b"{}")
    return Run.read(folder / "run")


def planned(folder: Path) -> schedule.Schedule:
    return schedule.make(load_scenario(str(folder / "scenario.yaml")), read_targets(folder / "targets.json"), 1, {})


@dataclass(frozen=True)
class Ran:
    """A generator at work in a folder of its own: the process that writes, those that help it, and the stub."""

    folder: Path
    process: subprocess.Popen[bytes]
    others: tuple[subprocess.Popen[bytes], ...]

    def over(self) -> Run:
        """What it wrote, after it ended well."""
        said, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, said.decode()
        return read(self.folder)

    def end(self) -> None:
        for process in (self.process, *self.others):
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=PATIENCE_S)


Begin = Callable[[Path], Ran]


def stalled(folder: Path) -> Ran:
    service, port = stub("--first-token-ms", "20", "--inter-token-ms", "10", "--stall", "0.3:2.5", "--country", "ee")
    traffic = {"arrivals": {"process": "constant", "rate": 20}}
    return Ran(folder, locust("--headless", *write(folder, {"ee": port}, traffic, duration_s=2)), (service,))


def every_kind(folder: Path) -> Ran:
    rate = {"process": "constant", "rate": 2}
    traffic: list[dict[str, Any]] = [{"kind": str(kind), "turns": 3, "arrivals": rate} for kind in Kind]
    traffic.append({"arrivals": {"users": 2}, "lengths": {"prompt": 20, "output": 9}})
    traffic.append({"arrivals": {"process": "constant", "rate": 4}, "abort_share": 1.0})
    service, port = stub("--first-token-ms", "5", "--inter-token-ms", "5", "--tokens-per-event", "2")
    return Ran(folder, locust("--headless", *write(folder, {"ee": port, "lv": port}, *traffic)), (service,))


def interrupted(folder: Path) -> Ran:
    service, port = stub("--first-token-ms", "100", "--inter-token-ms", "60000")
    traffic = {"arrivals": {"process": "constant", "rate": 20}}
    return Ran(folder, locust("--headless", *write(folder, {"ee": port}, traffic, duration_s=60)), (service,))


def shared(folder: Path) -> Ran:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    service, address = stub("--first-token-ms", "5", "--inter-token-ms", "5")
    sessions = {"kind": "conversation", "turns": 2, "arrivals": {"rate": 20}}
    files = write(folder, {"ee": address}, sessions, {"arrivals": {"users": 3}})
    place = ["--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--expect-workers", "2"]
    workers = [locust("--worker", "--master-host", "127.0.0.1", "--master-port", port) for _ in range(2)]
    return Ran(folder, locust("--headless", "--master", *place, *files), (*workers, service))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Begin, Ran]]:
    """All runs at once: each of them mostly waits."""
    found: dict[Begin, Ran] = {}
    try:
        for begin in (interrupted, shared, every_kind, stalled):
            found[begin] = begin(tmp_path_factory.mktemp(begin.__name__))
        yield found
    finally:
        for one in found.values():
            one.end()


def test_a_stalled_service_is_asked_on_time_all_the_same(runs: dict[Begin, Ran]) -> None:
    """Coordinated omission: every request goes out when it was planned, and waits from then on."""
    run = runs[stalled].over()
    plan = {arrival.serial: arrival.at for arrival in planned(runs[stalled].folder).arrivals}
    assert {record.serial: record.intended for record in run.records} == plan
    assert all(record.outcome is Outcome.FINISHED and record.terminals == 1 for record in run.records)
    # Nobody hears anything from 0.3 s to 2.8 s. Had the generator waited for answers, these would have gone out late.
    meanwhile = sorted((one for one in run.records if 0.5 < one.intended < 1.5), key=lambda one: one.intended)
    assert len(meanwhile) == 20
    assert all(one.sent < 2.5 for one in meanwhile)
    waits = [one.first_token_s or 0.0 for one in meanwhile]
    assert min(waits) > 1.0
    # All were answered at once, so who was to be sent earlier waited longer: counted from then, not from the sending.
    assert waits[0] - waits[-1] > 0.8


def test_a_run_leaves_everything_that_its_report_is_made_of(runs: dict[Begin, Ran]) -> None:
    run = runs[stalled].over()
    assert all(record.said_country == "ee" and record.output_tokens == 5 for record in run.records)
    assert all(record.first_tokens + sum(count for _, count in record.gaps) == 5 for record in run.records)
    assert all(record.service_class == "standard" and record.text_digest for record in run.records)
    figures = [sample.values for sample in run.samples if sample.source == "generator"]
    assert {"lag_p50_s", "lag_p99_s", "in_flight", "cpu", "sent", "behind"} <= set(figures[0])
    assert (figures[-1]["in_flight"], figures[-1]["sent"]) == (0, len(run.records))
    assert [(event.kind, event.what) for event in run.events] == [("phase", "calm")]


def test_every_kind_of_user_is_played(runs: dict[Begin, Ran]) -> None:
    records = runs[every_kind].over().records
    of = {kind: [record for record in records if record.kind is kind] for kind in Kind}
    assert all(of.values())
    assert len({record.serial for record in records}) == len(records)
    assert {(one.outcome, one.code) for one in records} == {(Outcome.FINISHED, ""), (Outcome.ABORTED, "left")}
    assert any(record.asked_tokens == 9 for record in of[Kind.CHAT])


def test_later_turns_wait_for_the_answer_and_repeat_it(runs: dict[Begin, Ran]) -> None:
    records = runs[every_kind].over().records
    turns = sorted((one for one in records if one.kind is Kind.CONVERSATION), key=lambda one: one.serial)
    first, second = turns[:2]
    assert second.serial == first.serial + 1
    assert second.intended >= first.ended
    assert second.prompt_tokens >= first.prompt_tokens + first.output_tokens


def test_an_interrupted_run_leaves_whole_files(runs: dict[Begin, Ran]) -> None:
    ran = runs[interrupted]
    if ran.process.poll() is None:
        _until(lambda: _sent(ran.folder) > 5)
        ran.process.send_signal(signal.SIGTERM)
    run = ran.over()
    assert len(run.records) > 5
    assert {(record.outcome, record.code) for record in run.records} == {(Outcome.ABORTED, "run-ended")}
    assert (ran.folder / "run" / "requests.jsonl").read_bytes().endswith(b"}\n")
    last = run.samples[-1].values
    assert (last["in_flight"], last["sent"]) == (0, len(run.records))
    assert run.events[-1].kind == "interruption"


def _sent(folder: Path) -> float:
    path = folder / "run" / "samples.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return float(orjson.loads(lines[-1])["values"]["sent"]) if lines else 0


def _until(met: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_two_workers_and_a_master_send_every_arrival_once(runs: dict[Begin, Ran]) -> None:
    run = runs[shared].over()
    assert all(record.outcome is Outcome.FINISHED for record in run.records)
    serials = [record.serial for record in run.records]
    assert len(set(serials)) == len(serials)
    first = {arrival.serial for arrival in planned(runs[shared].folder).arrivals}
    sessions = {record.serial for record in run.records if record.kind is Kind.CONVERSATION}
    assert first <= sessions <= first | {serial + 1 for serial in first}
    assert any(record.kind is Kind.CHAT for record in run.records)
    assert run.samples[-1].values["sent"] == len(run.records)


def test_what_cannot_be_run_is_refused_before_anything_is_sent() -> None:
    process = locust("--headless", "--scenario", "stedy", "--targets", "/nowhere.json")
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert b"did you mean 'steady'" in said
    assert b"Traceback" not in said


def options(**given: Any) -> argparse.Namespace:
    nothing: dict[str, Any] = {"scenario": "", "targets": "", "seed": None, "capacity": [], "only_capacity": False}
    return argparse.Namespace(**{**nothing, "plain_openai": False, **given})


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"scenario": "steady"}, "--targets is needed"),
        ({"scenario": "steady", "targets": "/nowhere.json"}, "cannot be read"),
        ({"scenario": "steady", "targets": "x", "capacity": ["ee"]}, "is not COUNTRY=REQUESTS_PER_SECOND"),
    ],
)
def test_an_order_says_what_it_lacks(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(TenantError, match=complaint):
        Order.of(options(**given)).plan()


def test_capacities_are_read() -> None:
    assert read_capacity(["ee=12.5", "lv=3"]) == {"ee": 12.5, "lv": 3.0}
    with pytest.raises(TenantError):
        read_capacity(["ee=many"])


def test_the_capacity_is_measured_by_the_traffic_that_is_relative_to_it(tmp_path: Path) -> None:
    files = write(tmp_path, {"ee": 1}, {"arrivals": {"rate": 1}}, {"kind": "document", "arrivals": {"load": 0.5}})
    order = Order(scenario=files[1], targets=files[3], only_capacity=True)
    found = order.plan().schedule
    assert [(loop.stream.kind, loop.users, loop.end) for loop in found.loops] == [(Kind.DOCUMENT, 3, 1)]
    write(tmp_path, {"ee": 1}, {"arrivals": {"rate": 1}})
    with pytest.raises(TenantError, match="relative"):
        capacity_schedule(*order.read())
