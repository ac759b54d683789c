"""``domicile loadtest`` around a stand-in for ``python -m loadtests``, which has tests of its own."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tenants.ground import CountryGround
from tests.house import SHIPPED

STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path

words = sys.argv[1:]
notes = Path(os.environ["NOTES"])
if words[0] == "describe":
    if words[1] == "nonsense":
        sys.exit("no scenario 'nonsense'")
    groups = [{"id": "acme", "plan": "standard", "count": 1}, {"id": "crowd", "plan": "batch", "count": 2}]
    codes = [words[place + 1] for place, word in enumerate(words) if word == "--country"] or ["ee", "kr"]
    print(json.dumps({"name": "steady", "countries": codes, "organisations": groups, "drain_s": 1.0,
        "phases": [{"duration_s": 5.0}], "capacity": {"duration_s": 1.0}}))
    sys.exit()

def option(name):
    return words[words.index(name) + 1]

told = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: told.append(signal.Signals(number).name))
folder = Path(option("--out"))
folder.mkdir(parents=True)
(folder / "report.html").write_text("<html>")
(folder / "verdict.json").write_text('{"kept": true}')
(notes / "seen.json").write_text(json.dumps(
    {"words": words, "targets": json.loads(Path(option("--targets")).read_text()), "path": os.environ["PATH"]}))
if "WAIT" in os.environ:
    (notes / "waiting").touch()
    while not told:
        time.sleep(0.01)
    time.sleep(0.2)
    (notes / "told.json").write_text(json.dumps(told))
print("what it says")
sys.exit(int(os.environ.get("CODE", "0")))
"""

COMMAND = """
import importlib, os, sys
loadtest = importlib.import_module("serving.cli.loadtest")
loadtest._LOADTESTS = (sys.executable, os.environ["STAND_IN"])
loadtest.ready = lambda country: country.code in os.environ["UP"]
class Cluster:
    def __init__(self, settings): ...
    def raylets(self): return {code: 1 for code in ("ee", "kr")}
    def processes(self): return []
loadtest.LocalCluster = Cluster
import serving.cli
sys.argv[0] = "domicile"
serving.cli.main()
"""


class Terminal:
    """Somebody at a prompt on a machine where countries are up."""

    def __init__(self, root: Path) -> None:
        self.home, self.notes = root / "home", root
        (root / "stand_in.py").write_text(STAND_IN)
        self.environment = {
            **os.environ,
            "DOMICILE_HOME": str(self.home),
            "DOMICILE_COUNTRIES": str(SHIPPED),
            "STAND_IN": str(root / "stand_in.py"),
            "NOTES": str(root),
            "UP": "ee kr",
            "COLUMNS": "200",
        }

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, "loadtest", *words],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        return process.returncode, out, err

    @property
    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.notes / "seen.json").read_text())
        return found

    def opens(self, key: str) -> bool:
        code = key.split("-")[1]
        ground = CountryGround(self.home / "countries" / code, code)
        return ground.keyring().identify(key, datetime.now(UTC)) is not None

    def keys(self) -> list[str]:
        return [
            organisation["key"]
            for country in self.seen["targets"]["sides"][0]["countries"]
            for organisation in country["organisations"]
        ]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_exit_code_is_the_verdict_s(terminal: Terminal, code: int) -> None:
    found, out, _ = terminal.run("steady", CODE=str(code))
    assert found == code
    assert "what it says" in out
    (folder,) = (terminal.home / "loadtests").iterdir()
    assert folder.name.startswith("steady-")
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert len(terminal.keys()) == 6
    assert not any(map(terminal.opens, terminal.keys()))


def test_an_end_without_a_verdict_is_none(terminal: Terminal) -> None:
    assert terminal.run("steady", CODE="9")[0] == 2


def test_what_is_asked_for_is_passed_on(terminal: Terminal, tmp_path: Path) -> None:
    options = ("--seed", "7", "--duration-scale", "0.5", "--capacity", "ee=2.5", "--country", "ee")
    code, _, _ = terminal.run("steady", *options, "--out", str(tmp_path / "mine"))
    assert code == 0
    words = terminal.seen["words"]
    assert words[:4] == ["run", "steady", "--country", "ee"]
    assert words[words.index("--out") + 1] == str(tmp_path / "mine")
    assert " ".join(words).endswith("--duration-scale 0.5 --seed 7 --capacity ee=2.5")
    (country,) = terminal.seen["targets"]["sides"][0]["countries"]
    assert country["code"] == "ee"
    assert terminal.seen["path"].startswith(str(Path(sys.executable).parent))


def test_a_rival_s_key_comes_from_a_private_file(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "rival.key"
    file.write_text("sk-rival\n")
    file.chmod(0o644)
    options = ("--against", "http://127.0.0.1:9/v1", "--against-model", "m", "--against-key-file", str(file))
    code, _, err = terminal.run("steady", *options)
    assert code == 2
    assert "others may use" in err
    file.chmod(0o600)
    assert terminal.run("steady", *options)[0] == 0
    _, rival = terminal.seen["targets"]["sides"]
    told = {(country["model"], one["key"]) for country in rival["countries"] for one in country["organisations"]}
    assert told == {("m", "sk-rival")}
    assert "sk-rival" not in " ".join(terminal.seen["words"])


def test_scripts_get_one_document(terminal: Terminal) -> None:
    code, out, err = terminal.run("steady", "--json", CODE="1")
    document = json.loads(out)
    assert (code, document["exit_code"], document["verdict"]) == (1, 1, {"kept": True})
    assert Path(document["folder"]).is_dir()
    assert "what it says" in err


def test_countries_must_be_up(terminal: Terminal) -> None:
    code, _, err = terminal.run("steady", UP="ee")
    assert code == 1
    assert "not up and ready: kr" in err
    assert "domicile up --country ee --country kr" in err
    assert not terminal.home.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nonsense",), "no scenario 'nonsense'"),
        (("steady", "--country", "xx"), "no country 'xx'"),
        (("steady", "--capacity", "ee"), "--capacity 'ee'"),
        (("steady", "--against-model", "m"), "belong to --against"),
        (("steady", "--duration-scale", "0"), "duration-scale"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(terminal: Terminal, words: tuple[str, ...], said: str) -> None:
    code, _, err = terminal.run(*words)
    assert code == 2
    assert said in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_once_and_the_keys_are_ended(terminal: Terminal, number: signal.Signals) -> None:
    process = terminal.start("steady", WAIT="1", CODE="2")
    try:
        deadline = time.monotonic() + 60
        while not (terminal.notes / "waiting").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert all(map(terminal.opens, terminal.keys()))
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2
    assert json.loads((terminal.notes / "told.json").read_text()) == [number.name]
    assert not any(map(terminal.opens, terminal.keys()))
