"""Faults come when they were planned, hit whom they should and nobody else, and nothing stays stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from loadtests.chaos import Mischief, NoSuchTarget, Planned, linked
from loadtests.mischief import inventory
from loadtests.mischief.inventory import Inventory
from loadtests.record import OURS, Event
from loadtests.targets import Targets

SLEEP = [sys.executable, "-c", "import time; time.sleep(120)"]


class Subjects:
    """Processes that do nothing, and an inventory of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "inventory.json"
        self.running: list[subprocess.Popen[bytes]] = []
        self.country: dict[str, Any] = {"country": "ee", "processes": {}, "raylets": [], "ready": True}
        self.write()

    @property
    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-c", f"print(open({str(self.file)!r}).read()); raise SystemExit(1)")

    def write(self) -> None:
        other = {"country": "kr", "processes": {"gateway": []}}
        self.file.write_text(json.dumps({"countries": [self.country, other]}))

    def start(self, name: str = "model") -> psutil.Process:
        process = subprocess.Popen(SLEEP)
        self.running.append(process)
        if name in ("raylets", "databases"):
            self.country.setdefault(name, []).append(process.pid)
        else:
            self.country["processes"].setdefault(name, []).append(process.pid)
        self.write()
        return psutil.Process(process.pid)

    def store(self) -> Path:
        path = self.folder / "store.sqlite"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS notes (text)")
        connection.close()
        self.country["store"] = str(path)
        self.write()
        return path

    def mischief(self, *planned: Planned, **options: Any) -> Mischief:
        return Mischief(planned, self.folder, inventory=self.command, poll_s=0.02, **options)

    def events(self) -> list[Event]:
        path = self.folder / "events.jsonl"
        return [Event(**orjson.loads(line)) for line in path.read_bytes().splitlines()] if path.exists() else []

    def wait_for(self, kind: str) -> Event:
        until(lambda: any(event.kind == kind for event in self.events()))
        return next(event for event in self.events() if event.kind == kind)


@pytest.fixture
def subjects(tmp_path: Path) -> Iterator[Subjects]:
    found = Subjects(tmp_path)
    yield found
    for process in found.running:
        process.kill()
        process.wait()


def until(condition: Callable[[], object], within_s: float = 10) -> None:
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.005)


def planned(action: str, target: str = "replica", country: str = "ee", **options: Any) -> Planned:
    return Planned(0.0, "p", action, target, country, **options)


def stopped(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_STOPPED)


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("terminate", signal.SIGTERM)])
@pytest.mark.parametrize("target", ["replica", "gateway", "raylet", "database"])
def test_who_is_to_end_ends_and_nobody_else(subjects: Subjects, action: str, number: int, target: str) -> None:
    names = {"replica": "model", "gateway": "gateway", "raylet": "raylets", "database": "databases"}
    processes = {each: subjects.start(name) for each, name in names.items()}
    with subjects.mischief(planned(action, target)) as mischief:
        mischief.begin(time.monotonic())
        victim = next(one for one in subjects.running if one.pid == processes[target].pid)
        assert victim.wait(10) == -number
        assert all(process.is_running() for each, process in processes.items() if each != target)
    (event,) = subjects.events()
    assert event.kind == "fault"
    assert event.what == f"{action} {target} of ee"
    assert event.facts == {"action": action, "target": target, "country": "ee", "phase": "p", "pid": victim.pid}
    assert mischief.problems == []


def test_when_another_has_taken_its_place_it_has_recovered(subjects: Subjects) -> None:
    first = subjects.start()
    with subjects.mischief(planned("kill")) as mischief:
        mischief.begin(time.monotonic())
        fault = subjects.wait_for("fault")
        subjects.country["processes"]["model"] = []
        subjects.country["ready"] = False
        subjects.start()
        time.sleep(0.2)
        assert len(subjects.events()) == 1, "it is there and not ready"
        subjects.country["ready"] = True
        subjects.write()
        recovery = subjects.wait_for("recovery")
    assert fault.facts["pid"] == recovery.facts["pid"] == first.pid
    assert recovery.facts["fault_at"] == fault.at
    assert recovery.facts["recovered_at"] == recovery.at > fault.at


def test_who_is_stopped_goes_on_after_its_time(subjects: Subjects) -> None:
    process = subjects.start()
    with subjects.mischief(planned("stop", for_s=0.2)) as mischief:
        mischief.begin(time.monotonic())
        until(lambda: stopped(process))
        until(lambda: not stopped(process))
    assert [event.kind for event in subjects.events()] == ["fault", "recovery"]
    assert subjects.events()[0].facts["for_s"] == 0.2


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, RuntimeError])
def test_nobody_stays_stopped_when_the_block_is_left(subjects: Subjects, error: type[BaseException] | None) -> None:
    processes = [subjects.start(), subjects.start("gateway")]
    plan = [planned("stop"), planned("stop", "gateway", for_s=3600)]
    try:
        with subjects.mischief(*plan) as mischief:
            mischief.begin(time.monotonic())
            until(lambda: all(map(stopped, processes)))
            if error is not None:
                raise error
    except (KeyboardInterrupt, RuntimeError):
        pass
    until(lambda: not any(map(stopped, processes)), within_s=2)
    assert [event.kind for event in subjects.events()].count("recovery") == 2
    assert threading.active_count() == 1 or not any(one.name == "mischief" for one in threading.enumerate())


def test_processes_are_looked_up_anew_for_each_fault(subjects: Subjects) -> None:
    subjects.start()
    first, second = planned("kill"), Planned(1.0, "p", "kill", "replica", "ee")
    with subjects.mischief(first, second) as mischief:
        mischief.begin(time.monotonic())
        subjects.running[0].wait(10)
        subjects.country["processes"]["model"] = []
        subjects.start()
        assert subjects.running[1].wait(10) == -signal.SIGKILL
        until(lambda: [event.kind for event in subjects.events()].count("fault") == 2)


def test_which_one_is_the_draw_s(subjects: Subjects) -> None:
    processes = [subjects.start() for _ in range(3)]
    with subjects.mischief(planned("kill", draw=7)) as mischief:
        mischief.begin(time.monotonic())
        assert subjects.running[1].wait(10) == -signal.SIGKILL
    assert processes[0].is_running()
    assert processes[2].is_running()


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (planned("kill"), "ee has no replica process"),
        (planned("kill", "database"), "ee has no database process"),
        (planned("lock", "database"), "ee has no database: no SQLite store"),
        (planned("kill", country="lv"), "lv is not up; the inventory has ee, kr"),
        (planned("latency", "client-link"), "no fault proxy stands before ee"),
    ],
)
def test_what_is_not_there_is_said_before_anything_happens(subjects: Subjects, plan: Planned, complaint: str) -> None:
    subjects.start("gateway")
    with pytest.raises(NoSuchTarget, match=complaint), subjects.mischief(planned("kill", "gateway"), plan):
        pytest.fail("it may not begin")
    assert subjects.running[0].poll() is None


@pytest.mark.parametrize("command", [["/nowhere/domicile"], ["true"], ["echo", "[]"], ["sh", "-c", "echo no >&2"]])
def test_an_inventory_that_says_nothing_is_said_to(command: list[str]) -> None:
    with pytest.raises(NoSuchTarget, match="the inventory cannot be taken"):
        Inventory.taken(command)


def test_an_inventory_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "TIMEOUT_S", 0.1)
    with pytest.raises(NoSuchTarget, match="took more than"):
        Inventory.taken(SLEEP)


def test_who_is_not_in_the_inventory_is_left_alone(subjects: Subjects) -> None:
    known = subjects.start()
    stranger = subprocess.Popen(SLEEP)
    subjects.running.append(stranger)
    found = Inventory.taken(subjects.command)
    assert found.process(known.pid) == known
    for pid in (stranger.pid, 1, 0, os.getpid()):
        with pytest.raises(NoSuchTarget, match="left alone"):
            found.process(pid)
    subjects.country["processes"]["model"].append(os.getpid())
    subjects.write()
    with pytest.raises(NoSuchTarget, match="left alone"):
        Inventory.taken(subjects.command).process(os.getpid())


def test_what_is_gone_by_then_is_a_problem_and_the_rest_goes_on(subjects: Subjects) -> None:
    subjects.start("gateway")
    subjects.start()
    plan = [planned("kill"), Planned(1.0, "p", "kill", "replica", "ee"), Planned(1.2, "p", "kill", "gateway", "ee")]
    with subjects.mischief(*plan) as mischief:
        mischief.begin(time.monotonic())
        subjects.wait_for("fault")
        subjects.running[1].wait(10)
        subjects.country["processes"]["model"] = []
        subjects.write()
        assert subjects.running[0].wait(10) == -signal.SIGKILL
    assert mischief.problems == ["kill replica of ee: ee has no replica process"]
    assert "ee has no replica process" in [event.facts.get("error") for event in subjects.events()]


def test_a_locked_store_cannot_be_written_until_it_is_released(subjects: Subjects) -> None:
    path = subjects.store()
    with subjects.mischief(planned("lock", "database")) as mischief:
        mischief.begin(time.monotonic())
        subjects.wait_for("fault")
        until(lambda: not _writable(path))
    assert _writable(path)
    assert [event.kind for event in subjects.events()] == ["fault", "recovery"]


def _writable(path: Path) -> bool:
    connection = sqlite3.connect(path, timeout=0)
    try:
        connection.execute("INSERT INTO notes VALUES ('x')")
        connection.commit()
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return True


def test_a_database_that_is_a_process_is_locked_by_stopping_it(subjects: Subjects) -> None:
    subjects.store()
    process = subjects.start("databases")
    with subjects.mischief(planned("lock", "database")) as mischief:
        mischief.begin(time.monotonic())
        until(lambda: stopped(process))
    until(lambda: not stopped(process))


def test_a_roll_out_is_a_command_and_its_end_is_told(subjects: Subjects) -> None:
    done = subjects.folder / "done"
    command = (sys.executable, "-c", f"import sys; open({str(done)!r}, 'w').write(' '.join(sys.argv[1:]))")
    with subjects.mischief(planned("roll-out", "country"), roll_out=command) as mischief:
        mischief.begin(time.monotonic())
        recovery = subjects.wait_for("recovery")
    assert done.exists()
    assert recovery.what == "roll-out of ee"
    assert done.read_text() == "--country ee"


def test_a_roll_out_that_fails_is_a_problem(subjects: Subjects) -> None:
    command = (sys.executable, "-c", "raise SystemExit('no room')")
    with subjects.mischief(planned("roll-out", "country"), roll_out=command) as mischief:
        mischief.begin(time.monotonic())
        until(lambda: mischief.problems)
    assert mischief.problems[0].endswith("ended with 1: no room")


def targets(port: int = 1, scheme: str = "http") -> Targets:
    countries = [{"code": code, "base_url": f"{scheme}://127.0.0.1:{port}/v1", "model": "m"} for code in ("ee", "kr")]
    return Targets.model_validate({"sides": [{"name": side, "countries": countries} for side in (OURS, "other")]})


def test_a_link_that_fails_is_ours_and_the_country_s_alone(subjects: Subjects) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        given = targets(listener.getsockname()[1])
        plan = [planned("half-close", "client-link", for_s=3600)]
        with linked(given, plan, seed=1) as (found, links), subjects.mischief(*plan, links=links) as mischief:
            assert list(links) == ["ee"]
            ee, kr = found.sides[0].countries
            assert ee.base_url == f"http://127.0.0.1:{links['ee'].port}/v1"
            assert kr == given.sides[0].countries[1]
            assert found.sides[1] == given.sides[1]
            mischief.begin(time.monotonic())
            subjects.wait_for("fault")
            until(lambda: _first_word(links["ee"].port, listener) == b"")
        assert [event.kind for event in subjects.events()] == ["fault", "recovery"]


def _first_word(port: int, listener: socket.socket) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"hello")
            return client.recv(10)


def test_a_link_over_tls_cannot_be_made_to_fail() -> None:
    with (
        pytest.raises(NoSuchTarget, match="TLS"),
        linked(targets(scheme="https"), [planned("stall", "client-link")], 1),
    ):
        pass
