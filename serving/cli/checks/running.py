"""Is what runs ours, silent and whole, and does nobody stand in its way?"""

from __future__ import annotations

import psutil

from serving.cli.checks import Finding, Patient, fail, lines, ok, warn
from serving.cli.inventory import GONE
from serving.settings import SILENCE
from tenants.country import WILDCARDS, Country


def addresses(patient: Patient) -> Finding:
    """Gateways share their port with one another, so the kernel would let them share it with a stranger too."""
    ours = {process.pid for process in patient.processes}
    listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    taken, held = [], 0
    for country in patient.countries:
        holders = {each.pid for each in listening if _overlaps(country, each.laddr.ip, each.laddr.port)}
        held += bool(holders & ours)
        taken += [
            f"{country.code}: {_named(pid)} listens at {country.address}" for pid in sorted(holders - ours, key=str)
        ]
    if taken:
        return fail(lines(taken), "end it, or give the country another gateway.port")
    return ok(f"{held} of {len(patient.countries)} held by our own processes, the others free")


def silence(patient: Patient) -> Finding:
    """Usage reporting is off in the environment of every process of ours (R8)."""
    talking = []
    for process in patient.processes:
        try:
            environment = process.environ()
        except GONE:
            continue
        missing = sorted(name for name, value in SILENCE.items() if environment.get(name) != value)
        talking += [f"process {process.pid} runs without {', '.join(missing)}"] if missing else []
    if talking:
        return fail(lines(talking), "domicile down, then domicile up")
    return ok(f"usage reports are off in {len(patient.processes)} processes")


def leftovers(patient: Patient) -> Finding:
    """Processes with our mark and no head to belong to are what a crash leaves."""
    count = len(patient.processes)
    if count and not patient.alive:
        return fail(f"{count} processes of a crash are left", "domicile down")
    gone = sorted(each.code for each in patient.countries if patient.alive and each.code not in patient.raylets)
    if gone:
        return warn(f"no node runs for {', '.join(gone)}", "domicile up brings back what is missing")
    return ok(f"{count} processes, all of a living cluster" if count else "nothing runs")


def _overlaps(country: Country, ip: str, port: int) -> bool:
    host = country.gateway.host
    return port == country.port and (ip == host or ip in WILDCARDS or host in WILDCARDS)


def _named(pid: int | None) -> str:
    if pid is None:
        return "a process of another user"
    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except GONE:
        return f"process {pid}"
