"""``domicile simulate``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.cli import app

SMALL = """
name: small
duration_s: 5
step_time: {fixed_s: 0.02, prefill_token_s: 0.001, decode_stream_s: 0.002}
countries: [{code: ee}]
organisations: [{id: acme}]
traffic:
  - organisations: acme
    arrivals: {rate: 20}
    lengths: {prompt: 100, output: 20}
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return str(file)


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["simulate", *words], env={"COLUMNS": "250"})
    return done.exit_code, done.stdout, done.stderr


def test_scripts_get_the_same_bytes_again(small: str) -> None:
    code, out, _ = run(small, "--json")
    assert code == 0
    assert run(small, "--json")[1] == out
    assert run(small, "--json", "--seed", "9")[1] != out
    (country,) = json.loads(out)["countries"]
    assert (country["code"], country["classes"].keys()) == ("ee", {"standard"})
    assert country["total"]["offered"] > 50
    assert sum(country["total"]["refused"].values()) > 0


def test_people_get_a_table(small: str) -> None:
    code, out, said = run(small)
    assert code == 0
    headings, country, organisation = (re.split(r"\s{2,}", line.strip()) for line in out.splitlines())
    assert country[0] == "ee × 1"
    assert organisation[0] == "acme"
    refused = json.loads(run(small, "--json")[1])["countries"][0]["total"]["refused"]
    # The headings leave the first column out.
    assert {name: int(country[1 + headings.index(name)]) for name in ("429", "503")} == {
        "429": refused.get("over_share", 0),
        "503": refused.get("overloaded", 0),
    }
    assert "busy" in said


def test_the_scheduler_and_the_duration_may_be_others(small: str) -> None:
    ours, stock = (json.loads(run(small, "--json", "--scheduler", name)[1]) for name in ("fair", "vllm"))
    assert stock["countries"][0]["total"]["refused"] == {}
    assert ours["countries"][0]["total"]["refused"] != {}
    short = json.loads(run(small, "--json", "--duration", "1")[1])
    assert short["duration_s"] == 1.0
    assert short["countries"][0]["total"]["offered"] < 50


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("overlaod",), "did you mean 'overload'"),
        (("/nowhere/mine.yaml",), "cannot be read"),
        (("overload", "--scheduler", "lottery"), "lottery"),
        (("overload", "--duration", "0"), "duration"),
    ],
)
def test_what_cannot_be_played_is_a_usage_error(words: tuple[str, ...], said: str) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert said in err


def test_an_unknown_key_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(SMALL.replace("duration_s", "duration_ms"))
    code, _, err = run(str(file))
    assert code == 2
    assert "did you mean 'duration_s'" in err
