"""``domicile doctor``: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import psutil
import typer

from serving.cli.checks import Check, Finding, Patient, Verdict, home, installation, machine, running, warn
from serving.cli.cluster import LocalCluster
from serving.cli.findings import show
from serving.cli.inspection import inspect
from serving.cli.output import CHECK_FAILED, emit_json
from serving.cli.tenancy import AsJson
from serving.cli.up import DEFAULT_COUNTRIES
from serving.settings import Settings
from tenants.country import Country
from tenants.errors import TenantError
from tenants.registry import find_country

CHECKS: Mapping[str, Check] = {
    "Python": installation.python,
    "vLLM": installation.vllm,
    "Ray": installation.ray,
    "torch": installation.torch,
    "torchvision": installation.torchvision,
    "kernels": installation.kernels,
    "OpenMP": installation.openmp,
    "libnuma": installation.numa,
    "cores": machine.cores,
    "memory": machine.memory,
    "shared memory": machine.shared_memory,
    "open files": machine.open_files,
    "temporary folder": machine.temporary,
    "home": home.home,
    "filesystem": home.filesystem,
    "secrets": home.secrets,
    "tenant files": home.tenants,
    "models": home.models,
    "addresses": running.addresses,
    "silence": running.silence,
    "leftovers": running.leftovers,
}


def doctor(
    egress: Annotated[
        str, typer.Option("--egress", metavar="CC", help="Show whom a country's processes here talk to, instead.")
    ] = "",
    watch: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="With --egress: look again and again for so long.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Look for what is wrong here and say what to do about it. Exit code 1 when a check fails."""
    if egress:
        inspect(egress, watch, as_json)
        return
    patient = _patient(Settings.from_environment())
    findings = {name: examine(check, patient) for name, check in CHECKS.items()}
    failed = any(finding.verdict is Verdict.FAIL for finding in findings.values())
    if as_json:
        checks = [{"check": name, **asdict(finding)} for name, finding in findings.items()]
        emit_json({"ok": not failed, "checks": checks})
    else:
        for name, finding in findings.items():
            show(name, finding)
    if failed:
        raise typer.Exit(CHECK_FAILED)


def examine(check: Check, patient: Patient) -> Finding:
    """A finding in any case: what a check cannot look at is worth a word, not the end of the examination."""
    try:
        return check(patient)
    except (OSError, psutil.Error) as error:
        return warn(f"could not be looked at: {error}", "run domicile doctor as the user who runs domicile up")


def _patient(settings: Settings) -> Patient:
    cluster = LocalCluster(settings)
    record, raylets = cluster.record(), cluster.raylets()
    present = sorted(record.applied) if record is not None and "" in raylets else []
    countries = [_readable(code, settings) for code in present or DEFAULT_COUNTRIES]
    return Patient(
        settings=settings,
        cluster=cluster,
        processes=tuple(cluster.processes()),
        raylets=raylets,
        countries=tuple(country for country in countries if country is not None),
    )


def _readable(code: str, settings: Settings) -> Country | None:
    """The country, unless its file is wrong: the check of all tenant files tells of that."""
    try:
        return find_country(settings.countries, code)
    except TenantError:
        return None
