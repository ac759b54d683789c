"""``domicile doctor --egress CC``: whom a country's processes talk to, seen now or for a while."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import typer

from serving.cli.checks import Finding, Verdict, egress, fail
from serving.cli.cluster import LocalCluster
from serving.cli.findings import show
from serving.cli.output import CHECK_FAILED, USAGE, console, emit_json, emit_table, note
from serving.cli.output import fail as leave
from serving.cli.peers import Opening, Peer, Talk, openings, talks
from serving.cli.sockets import own_addresses, owners, sockets, title
from serving.settings import Settings
from tenants.country import Country
from tenants.errors import TenantError
from tenants.registry import find_country

PAUSE_S = 0.1
SAMPLING = (
    "Looked {samples} times: a connection that came and went in between was not seen. The counters of loaded nftables "
    "rules miss nothing."
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a country, once or several times."""

    pids: frozenset[int]
    talks: Sequence[Talk]
    openings: Sequence[Opening]
    samples: int


def inspect(code: str, watch_s: float, as_json: bool) -> None:
    """Exit code 1 when a check fails: somebody abroad or of another country, or a process that is not silent."""
    settings = Settings.from_environment()
    try:
        country = find_country(settings.countries, code)
    except TenantError as error:
        leave(str(error), USAGE)
    seen = _watched(country, LocalCluster(settings), watch_s)
    findings = judge(country, seen)
    failed = any(finding.verdict is Verdict.FAIL for finding in findings.values())
    if as_json:
        emit_json(_document(country, seen, findings, failed))
    else:
        _show(seen, findings)
    if failed:
        raise typer.Exit(CHECK_FAILED)


def judge(country: Country, seen: Seen) -> dict[str, Finding]:
    """The checks, by name."""
    if not seen.pids:
        return {"processes": fail(f"nothing of {country.code} runs here", "look on its nodes, or: domicile up")}
    return {
        "peers": egress.company(country, seen.talks),
        "listeners": egress.doors(country, seen.openings),
        "silence": egress.environments(country, sorted(seen.pids)),
        "rules": egress.rules(country),
    }


def _watched(country: Country, cluster: LocalCluster, watch_s: float) -> Seen:
    """One look at least, and as many as fit into the time. Connections that are seen twice are told once."""
    until = time.monotonic() + watch_s
    pids: set[int] = set()
    found: dict[Talk, None] = {}
    doors: dict[Opening, None] = {}
    samples = 0
    while not samples or time.monotonic() < until:
        time.sleep(PAUSE_S if samples else 0)
        whose = owners(cluster.raylets(), cluster.processes())
        every, here = sockets(), own_addresses()
        pids |= {pid for pid, owner in whose.items() if owner == country.code}
        found |= dict.fromkeys(talks(country, every, whose, here))
        doors |= dict.fromkeys(openings(country, every, whose))
        samples += 1
    return Seen(frozenset(pids), list(found), list(doors), samples)


def _document(country: Country, seen: Seen, findings: Mapping[str, Finding], failed: bool) -> dict[str, object]:
    return {
        "country": country.code,
        "ok": not failed,
        "samples": seen.samples,
        "networks": list(country.residency.networks),
        "connections": [{**asdict(one), "process": title(one.pid)} for one in seen.talks],
        "listeners": [{**asdict(one), "process": title(one.pid)} for one in seen.openings],
        "checks": [{"check": name, **asdict(finding)} for name, finding in findings.items()],
    }


def _show(seen: Seen, findings: Mapping[str, Finding]) -> None:
    rows: dict[tuple[str, ...], int] = {}
    for one in seen.talks:
        # Which of a process' many connections to one peer it is tells nothing.
        other = title(one.other) if one.other is not None else one.remote
        row = (one.peer.value, f"{title(one.pid)} ({one.pid})", one.protocol, other)
        rows[row] = rows.get(row, 0) + 1
    order = list(Peer)
    ranked = sorted(rows.items(), key=lambda row: (-order.index(Peer(row[0][0])), row[0]))
    if ranked:
        emit_table(("peer", "process", "by", "with", "connections"), ((*row, str(count)) for row, count in ranked))
        console.print()
    for name, finding in findings.items():
        show(name, finding)
    if seen.pids:
        note(SAMPLING.format(samples=seen.samples))
