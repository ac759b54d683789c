"""What the README tells people to type works as it stands there: only the address and the key are put in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from serving.cli import app
from tests.running import RunningCountry

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WRITTEN = "http://127.0.0.1:9233/v1"
NODE = ROOT / "tests" / "node"
NO_NODE = "no node here, or no openai package in tests/node/node_modules"

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules" / "openai").is_dir(), reason=NO_NODE
)


def block(language: str) -> str:
    """The README's only block of code in a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return str(found)


def typed(command: list[str], language: str, country: RunningCountry, folder: Path) -> str:
    """What the README's block prints when it is given to ``command``."""
    code = block(language)
    assert code.count(WRITTEN) == 1
    done = subprocess.run(
        command,
        input=code.replace(WRITTEN, country.base_url),
        env={**os.environ, "DOMICILE_KEY": country.key},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.ray
def test_curl(running_country: RunningCountry, tmp_path: Path) -> None:
    assert "Paris" in typed(["bash", "-e"], "bash", running_country, tmp_path)


@pytest.mark.ray
def test_the_sdk_for_python(running_country: RunningCountry, tmp_path: Path) -> None:
    assert "Paris" in typed([sys.executable, "-"], "python", running_country, tmp_path)


@pytest.mark.ray
@needs_node
def test_the_sdk_for_node(running_country: RunningCountry) -> None:
    assert "Paris" in typed(["node", "--input-type=module", "-"], "js", running_country, NODE)


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) >= 10
    assert [link for link in links if not leads_somewhere(*link.partition("#")[::2])] == []


def leads_somewhere(path: str, heading: str) -> bool:
    file = ROOT / path
    if not heading:
        return file.exists()
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return heading in ["-".join(re.findall(r"\w+", one.lower())) for one in headings]


def test_every_command_is_in_the_table() -> None:
    table = {
        words for line in README.splitlines() if line.startswith("| `") for words in re.findall(r"`([^`]+)`", line)
    }
    root = get_command(app)
    names = {
        f"{name} {below}" if below else name
        for name, command in getattr(root, "commands", {}).items()
        for below in getattr(command, "commands", {None: None})
    }
    told = {" ".join(word for word in words.split() if word != "ee") for words in table}
    assert names - told == set()


def test_it_fits_on_one_screen() -> None:
    assert len(README.splitlines()) <= 95
