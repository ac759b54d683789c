from __future__ import annotations

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tenants.ground import CountryGround, GroundError
from tenants.store import StoreError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    ground = CountryGround(tmp_path / "countries" / "ee", "ee")
    pepper, cell_key = ground.pepper(), ground.cell_key()
    assert len(pepper) == len(cell_key) == 32
    assert pepper != cell_key
    assert CountryGround(ground.directory, "ee").pepper() == pepper
    with ground.store():
        files = {path.name: mode(path) for path in ground.directory.iterdir()}
    assert mode(ground.directory) == 0o700
    assert {"pepper", "cell.key", "tenants.sqlite", "tenants.sqlite-wal"} <= files.keys()
    assert set(files.values()) == {0o600}


@pytest.mark.parametrize("loose", [0o640, 0o604, 0o660, 0o755])
def test_a_secret_that_others_could_read_is_refused(tmp_path: Path, loose: int) -> None:
    ground = CountryGround(tmp_path, "ee")
    ground.pepper()
    (tmp_path / "pepper").chmod(loose)
    with pytest.raises(GroundError, match="chmod 600"):
        ground.pepper()


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_secret_of_a_wrong_size_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cell.key").write_bytes(content)
    (tmp_path / "cell.key").chmod(0o600)
    with pytest.raises(GroundError, match="should hold 32 bytes"):
        CountryGround(tmp_path, "ee").cell_key()


def test_a_secret_is_no_link_and_no_folder(tmp_path: Path) -> None:
    other = CountryGround(tmp_path / "kr", "kr")
    other.pepper()
    ground = CountryGround(tmp_path / "ee", "ee")
    ground.store().close()
    (ground.directory / "pepper").symlink_to(other.directory / "pepper")
    (ground.directory / "cell.key").mkdir()
    with pytest.raises(GroundError):
        ground.pepper()
    with pytest.raises(GroundError):
        ground.cell_key()


def test_many_at_once_agree(tmp_path: Path) -> None:
    def ask(_: int) -> tuple[bytes, bytes]:
        ground = CountryGround(tmp_path / "ee", "ee")
        with ground.store() as store:
            assert not store.list_organisations()
        return ground.pepper(), ground.cell_key()

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(ask, range(64)))) == 1
    assert not [path.name for path in (tmp_path / "ee").iterdir() if path.name.startswith(".")]


def test_processes_agree(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys; from tenants.ground import CountryGround as G;"
        "g = G(pathlib.Path(sys.argv[1]), 'ee'); g.store().close(); print(g.pepper().hex())"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "ee")], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = {process.communicate(timeout=60)[0] for process in running}
    assert {process.returncode for process in running} == {0}
    assert len(answers) == 1


def test_r6_a_ground_opens_no_other_country_s_store(tmp_path: Path) -> None:
    CountryGround(tmp_path, "ee").store().close()
    with pytest.raises(StoreError, match="belongs to ee, not to kr"):
        CountryGround(tmp_path, "kr").store()


def test_a_place_where_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for use in (CountryGround.pepper, CountryGround.store):
        with pytest.raises(GroundError):
            use(CountryGround(tmp_path / "file" / "ee", "ee"))
