"""A model's digest: the same for the same files, another for others, and read once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from serving.engine import checkpoint
from serving.engine.checkpoint import digest
from serving.engine.models import MANIFEST, ModelError
from tenants.country import Source

FILES = {"config.json": b"{}", "model.safetensors": b"\x00" * 1000, "tokenizer.json": b"[]"}


def made(folder: Path, **files: bytes) -> Path:
    folder.mkdir()
    for name, content in {**FILES, **files}.items():
        (folder / name).write_bytes(content)
    return folder


def of(folder: Path) -> str:
    return digest(Source(path=folder), Path("/nowhere"), folder.parent / "remembered")


def test_anybody_who_has_the_files_can_make_it_again(tmp_path: Path) -> None:
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in FILES.items()
    }
    expected = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    assert of(made(tmp_path / "m")) == f"sha256:{expected}"


def test_it_is_the_files_and_not_where_they_are_nor_what_lies_beside_them(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), made(tmp_path / "other")
    (other / MANIFEST).write_text("{}")
    (other / ".cache").mkdir()
    (other / ".hidden").write_text("x")
    assert of(one) == of(other)


@pytest.mark.parametrize(
    "change", [{"config.json": b"{} "}, {"model.safetensors": b"\x00" * 999 + b"\x01"}, {"more.json": b""}]
)
def test_any_byte_changes_it(tmp_path: Path, change: dict[str, bytes]) -> None:
    assert of(made(tmp_path / "one")) != of(made(tmp_path / "other", **change))


def test_files_are_read_once_and_again_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / "m")
    first = of(folder)
    with monkeypatch.context() as closed:
        closed.setattr(checkpoint, "sha256_of", lambda path: pytest.fail(f"{path} was read again"))
        assert of(folder) == first
    (folder / "config.json").write_bytes(b"[]")
    assert of(folder) != first
    (memory,) = (tmp_path / "remembered").iterdir()
    memory.write_text("nonsense")
    assert of(folder) != first
    assert json.loads(memory.read_text())["digest"] == of(folder)


def test_links_are_followed(tmp_path: Path) -> None:
    """As hubs keep their files."""
    real, linked = made(tmp_path / "real"), tmp_path / "linked"
    linked.mkdir()
    for name in FILES:
        (linked / name).symlink_to(real / name)
    assert of(linked) == of(real)


def test_what_is_no_checkpoint_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no model at"):
        of(tmp_path)
    folder = made(tmp_path / "m")
    monkeypatch.setattr(checkpoint, "MOST_FILES", 2)
    with pytest.raises(ModelError, match="more than 2 files"):
        of(folder)


def test_a_hub_s_model_that_was_not_fetched_is_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not on this node"):
        digest(Source(hub="nobody/nothing-of-this-name"), tmp_path, tmp_path / "remembered")
