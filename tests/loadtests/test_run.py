"""A run as its user meets it: the command, the folder that it leaves, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import pytest
import yaml
from rich.console import Console

from loadtests import run
from loadtests.__main__ import main
from loadtests.chaos import NoSuchTarget
from loadtests.judging import history
from loadtests.record import Outcome, Run, Sample
from loadtests.running import child
from loadtests.running.capacity import measured
from loadtests.running.folder import add, prepare, room_for, write_plan
from loadtests.running.signals import Told
from loadtests.scenario import Scenario, load_scenario
from loadtests.schedule import Schedule
from loadtests.targets import Targets, read_targets
from tenants.errors import TenantError
from tests.loadtests.test_live import arrival, record

SECRET = "sk-ee-very-secret"
REQUESTS_S = 40


@pytest.fixture(scope="module")
def stub() -> Iterator[str]:
    """An endpoint that answers at once: first token after 20 ms, then one each 5 ms."""
    command = [sys.executable, "-m", "loadtests.stub", "--first-token-ms", "20", "--inter-token-ms", "5"]
    with subprocess.Popen([*command, "--country", "ee"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        process.terminate()


def scenario_file(folder: Path, **changes: Any) -> Path:
    """Two seconds of steady traffic, all of it light."""
    lengths = {"prompt": 20, "output": 5}
    traffic = [{"organisations": "acme", "arrivals": {"process": "constant", "rate": REQUESTS_S}, "lengths": lengths}]
    described = {
        "name": "mini",
        "title": "Two seconds",
        "organisations": [{"id": "acme", "count": 2}],
        "phases": [{"name": "steady", "duration_s": 2, "traffic": traffic}],
        "drain_s": 5,
        **changes,
    }
    path = folder / "mini.yaml"
    path.write_text(yaml.safe_dump(described), encoding="utf-8")
    return path


def targets_file(folder: Path, url: str, first_token_s: float = 5.0) -> Path:
    organisations = [{"id": f"acme-{number}", "key": f"{SECRET}-{number}"} for number in (1, 2)]
    slo = {"first_token_s": first_token_s, "inter_token_s": 5.0, "objective": 0.9}
    country = {"code": "ee", "base_url": url, "model": "stub", "slo": slo, "organisations": organisations}
    path = folder / "targets.json"
    path.write_text(json.dumps({"sides": [{"name": "domicile", "countries": [country]}]}), encoding="utf-8")
    path.chmod(0o600)
    return path


def asked(folder: Path, url: str, *options: str, **changes: Any) -> list[str]:
    """The words of a whole command."""
    targets = targets_file(folder, url, changes.pop("first_token_s", 5.0))
    words = ["run", str(scenario_file(folder, **changes)), "--targets", str(targets), "--out", str(folder / "run")]
    return [*words, *options]


def ran(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    root = Path(run.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "loadtests", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_run_leaves_everything_that_its_verdict_is_made_of(stub: str, tmp_path: Path) -> None:
    done = ran(asked(tmp_path, stub, "--json"), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "run"
    assert folder.stat().st_mode & 0o777 == 0o700
    found = Run.read(folder)
    assert len(found.records) == pytest.approx(2 * REQUESTS_S, abs=2)
    assert {one.outcome for one in found.records} == {Outcome.FINISHED}
    assert {one.source for one in found.samples} >= {"machine", "generator"}
    assert min(one.at for one in found.samples) >= 0
    assert found.plan["phases"] == [{"name": "steady", "side": "domicile", "begin": 0.0, "end": 2.0, "judged": True}]
    assert found.plan["machine"]["cores"] >= 1
    assert orjson.loads(done.stdout) == orjson.loads((folder / "verdict.json").read_bytes())
    ElementTree.parse(folder / "junit.xml")  # noqa: S314 (our own)
    assert "<html" in text(folder / "report.html")
    for path in folder.rglob("*"):
        assert path.is_dir() or SECRET not in path.read_text(encoding="utf-8", errors="replace"), path
    broken_when_promised_more(folder)


def broken_when_promised_more(folder: Path) -> None:
    """The same run, had the country promised a first token within a millisecond."""
    plan = orjson.loads((folder / "plan.json").read_bytes())
    plan["targets"]["sides"][0]["countries"][0]["slo"]["first_token_s"] = 0.001
    (folder / "plan.json").write_bytes(orjson.dumps(plan))
    (folder / "report.html").unlink()
    assert main(["report", str(folder), "--quiet"]) == 1
    assert (folder / "report.html").exists()


def test_an_interrupted_run_is_reported_as_such(stub: str, tmp_path: Path) -> None:
    lengths = {"prompt": 20, "output": 500}
    traffic = [{"organisations": "acme", "arrivals": {"rate": REQUESTS_S}, "lengths": lengths}]
    words = asked(tmp_path, stub, phases=[{"name": "steady", "duration_s": 60, "traffic": traffic}])
    root = Path(run.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-m", "loadtests", *words],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        until(lambda: 'in_flight":' in text(tmp_path / "run" / "samples.jsonl") and in_flight(tmp_path / "run"))
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert "the run was interrupted (SIGINT)" in said
    found = Run.read(tmp_path / "run")
    assert "interruption" in {one.kind for one in found.events}
    assert Outcome.ABORTED in {one.outcome for one in found.records}
    assert "interrupted" in text(tmp_path / "run" / "report.html").lower()
    assert (tmp_path / "run" / "verdict.json").exists()


def in_flight(folder: Path) -> bool:
    return any(one.values.get("in_flight") for one in Run.read(folder).samples if one.source == "generator")


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def until(holds: Any, within_s: float = 30.0) -> None:
    ends = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("options", "changes", "said"),
    [
        ((), {"phaze": 1}, "unknown key 'phaze' in the scenario; did you mean 'phases'?"),
        ((), {"countries": ["kr"]}, "kr"),
        (("--capacity", "ee=-1"), {}, "--capacity"),
        (("--duration-scale", "0"), {}, "--duration-scale"),
        (("--country", "Estonia"), {}, "'Estonia' is no country's code"),
        ((), {"organisations": [{"id": "acme", "count": 3}]}, "acme-3"),
        ((), {"phases": [{"name": "a", "duration_s": 1, "faults": [{"at_s": 2, "action": "kill"}]}]}, "phase ends"),
    ],
)
def test_bad_input_is_named_before_anything_is_made(
    options: tuple[str, ...], changes: dict[str, Any], said: str, stub: str, tmp_path: Path, capsys: Any
) -> None:
    assert code_of(asked(tmp_path, stub, *options, **changes)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def code_of(words: list[str]) -> int | str | None:
    try:
        return main(words)
    except SystemExit as left:
        return left.code


def test_an_endpoint_that_is_not_there_is_named(tmp_path: Path, capsys: Any) -> None:
    assert main(asked(tmp_path, "http://127.0.0.1:1")) == 2
    assert "ee of domicile (http://127.0.0.1:1): nobody listens there" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_endpoint_that_answers_html_is_named(tmp_path: Path, capsys: Any) -> None:
    command = [sys.executable, "-m", "loadtests.stub", "--html"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        assert main(asked(tmp_path, url)) == 2
        process.terminate()
    assert "web page (HTML)" in capsys.readouterr().err


def test_faults_without_processes_are_refused_before_anything_is_sent(stub: str, tmp_path: Path, capsys: Any) -> None:
    phases = [{"name": "a", "duration_s": 1, "faults": [{"at_s": 0.5, "action": "kill"}]}]
    assert main(asked(tmp_path, stub, "--inventory", "no-such-command status", phases=phases)) == 2
    assert "the inventory cannot be taken: no-such-command status" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_country_without_replicas_cannot_lose_one(stub: str, tmp_path: Path, capsys: Any) -> None:
    inventory = tmp_path / "inventory.sh"
    inventory.write_text("""#!/bin/sh\necho '{"countries": [{"country": "ee", "processes": {}}]}'\n""")
    inventory.chmod(0o700)
    phases = [{"name": "a", "duration_s": 1, "faults": [{"at_s": 0.5, "action": "kill"}]}]
    assert main(asked(tmp_path, stub, "--inventory", str(inventory), phases=phases)) == 2
    assert "ee has no replica process" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_run_is_kept(stub: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").write_text("{}")
    assert main(asked(tmp_path, stub)) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert text(tmp_path / "run" / "plan.json") == "{}"


def test_where_nothing_can_be_written_nothing_is_sent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TenantError, match="cannot be written to"):
        prepare(tmp_path / "file" / "run")


def test_a_disk_that_is_too_small_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1024**2

    monkeypatch.setattr("loadtests.running.folder.disk_usage", lambda _: Usage)
    with pytest.raises(TenantError, match="1 MiB are free"):
        room_for(Schedule((arrival(1, 0.0),), (), (), 1.0, ()), tmp_path)


@pytest.mark.parametrize("leaks", [False, True])
def test_nobody_is_judged_before_the_replicas_were_seen_after_the_last_answer(
    leaks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are sampled from outside, once a second: what was seen last may be from before the last answer's end."""
    monkeypatch.setattr(run, "SETTLED_S", 2.0)
    monkeypatch.setattr(run, "SAMPLE_EVERY_S", 0.01)
    folder = tmp_path / "run"
    targets = Targets.model_validate({"sides": [{"name": "domicile", "countries": [COUNTRY]}]})
    prepare(folder)
    write_plan(folder, load_scenario(str(scenario_file(tmp_path))), targets, 1, {})
    add(folder, Sample(1.0, "replica:ee:0", {"running": 1.0, "outstanding_tokens": 86.0}))
    seen = Sample(2.0, "replica:ee:0", {"running": float(leaks), "outstanding_tokens": 0.0})
    later = threading.Timer(0.2, add, (folder, seen))
    later.start()
    began = time.monotonic()
    run._settle(folder, Told())
    later.join()
    assert history.unsettled(Run.read(folder)) is leaks
    assert (time.monotonic() - began >= run.SETTLED_S) is leaks


def test_the_generator_has_a_session_of_its_own_that_is_scheduled_ahead(tmp_path: Path) -> None:
    generator = child.Generator(tmp_path, tmp_path / "none.yaml", tmp_path / "none.json", 1, {})
    try:
        assert os.getsid(generator.pid) == generator.pid != os.getsid(0)
        scheduled = Path(f"/proc/{generator.pid}/autogroup")
        if scheduled.exists() and os.geteuid() == 0:
            assert scheduled.read_text().endswith("nice -10\n")
            assert not Path("/proc/self/autogroup").read_text().endswith("nice -10\n")
    finally:
        generator.kill()


class Generator:
    """Ends at once, as it is told to."""

    status: int | None = 0
    leaves: tuple[Any, ...] = ()
    asked: Mapping[str, Any] = {}

    def __init__(self, folder: Path, scenario: Path, targets: Path, seed: int, capacity: Any, *options: str) -> None:
        type(self).asked = {"capacity": dict(capacity), "options": options}
        assert load_scenario(str(scenario))
        with (folder / "requests.jsonl").open("ab") as file:
            file.writelines(one.to_json() + b"\n" for one in self.leaves)

    def ended(self) -> int | None:
        return self.status

    def stop(self) -> None:
        pass

    def last_words(self) -> str:
        return "MemoryError"


def executed(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch, generator: type[Generator]) -> int:
    """Runs a scenario with a relative rate, in this process."""
    monkeypatch.setattr(run, "Generator", generator)
    traffic = [{"organisations": "acme", "arrivals": {"load": 0.5}, "lengths": {"prompt": 5, "output": 5}}]
    path = scenario_file(folder, phases=[{"name": "steady", "duration_s": 2, "traffic": traffic}])
    targets = targets_file(folder, url)
    scenario = load_scenario(str(path))
    job = run.Job(scenario, read_targets(targets), targets, folder / "run", 1)
    return int(run.execute(job, Console(quiet=True)).exit_code)


def test_a_generator_that_dies_is_said_to_have(stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(Generator):
        status = -9

    assert executed(tmp_path, stub, monkeypatch, Dying) == 2
    (event,) = Run.read(tmp_path / "run").events
    assert event.what.startswith("the load generator died with status -9: MemoryError")
    assert event.what.endswith("while the capacity was measured")
    assert (tmp_path / "run" / "report.html").exists()


def test_without_an_answer_there_is_no_capacity(stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert executed(tmp_path, stub, monkeypatch, Generator) == 2
    (event,) = Run.read(tmp_path / "run").events
    assert event.what.startswith("ee finished no request while the capacity was measured")


def test_relative_rates_are_of_what_was_measured(stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Working(Generator):
        leaves = tuple(record(serial, 6.0 + serial / 10) for serial in range(135))

    executed(tmp_path, stub, monkeypatch, Working)
    # The scenario measures for 20 s, of which the last 15 count.
    assert Working.asked == {"capacity": {"ee": pytest.approx(9.0)}, "options": ()}
    assert Run.read(tmp_path / "run").plan["capacity"] == {"ee": pytest.approx(9.0)}


def test_capacity_counts_what_finished_after_the_warm_up(tmp_path: Path) -> None:
    scenario = Scenario.model_validate(
        {
            "name": "a",
            "title": "A",
            "organisations": [{"id": "acme"}],
            "phases": [{"name": "a", "duration_s": 1}],
            "capacity": {"duration_s": 8},
        }
    )
    prepare(tmp_path / "run")
    targets = Targets.model_validate({"sides": [{"name": "domicile", "countries": [COUNTRY]}]})
    write_plan(tmp_path / "run", scenario, targets, 1, {})
    # The window is from 2 to 8: none of the first, half of the second, all of the third, a third of the fourth.
    served = [(1, 0.5, 1.9), (2, 0.0, 4.0), (3, 2.0, 7.9), (4, 7.0, 10.0)]
    ended = [replace(record(serial, end), intended=begin) for serial, begin, end in served]
    ended.append(record(5, 5.0, outcome=Outcome.REFUSED))
    with (tmp_path / "run" / "requests.jsonl").open("ab") as file:
        file.writelines(one.to_json() + b"\n" for one in ended)
    assert measured(tmp_path / "run", scenario) == {"ee": pytest.approx((0.5 + 1 + 1 / 3) / 6)}


COUNTRY = {"code": "ee", "base_url": "http://127.0.0.1:1", "model": "stub", "organisations": [{"id": "acme"}]}


def test_a_target_that_goes_meanwhile_ends_the_run(stub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Working(Generator):
        leaves = (record(1, 10.0),)

    seen: list[None] = []

    def mischief(job: run.Job, planned: Schedule) -> Any:
        seen.append(None)
        if len(seen) > 1:
            raise NoSuchTarget("ee has no replica process")
        return plain(job, planned)

    plain = run._mischief
    monkeypatch.setattr(run, "_mischief", mischief)
    assert executed(tmp_path, stub, monkeypatch, Working) == 2
    assert [one.what for one in Run.read(tmp_path / "run").events] == ["ee has no replica process"]


def test_what_is_no_run_is_not_judged(tmp_path: Path, capsys: Any) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err


def test_scenarios_are_listed(capsys: Any) -> None:
    assert main(["scenarios", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed["soak"]["duration_s"] == 1800
    assert main(["scenarios"]) == 0
    assert "noisy-neighbour" in capsys.readouterr().out


def test_a_scenario_is_described_for_the_countries_named(capsys: Any) -> None:
    assert main(["describe", "steady", "--country", "kr", "--country", "kr"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["countries"] == ["kr"]
    assert described["drain_s"] == 60.0
