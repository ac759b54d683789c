"""Does a country's part of this machine keep to itself? Findings of ``domicile doctor --egress``."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Collection, Iterable, Mapping

import psutil

from serving.cli.checks import Finding, fail, lines, ok, warn
from serving.cli.firewall import digest, table
from serving.cli.inventory import GONE
from serving.cli.peers import WRONG, Opening, Peer, Talk
from serving.cli.sockets import title
from serving.settings import OFFLINE, SILENCE
from tenants.country import Country

_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_TIMEOUT_S = 10


def company(country: Country, seen: Collection[Talk]) -> Finding:
    """Nobody abroad, and nobody of another country, is at the other end of a connection."""
    wrong = sorted({_wrong(one) for one in seen if one.peer in WRONG})
    if wrong:
        return fail(
            lines(wrong),
            f"if it is at home, name its network in residency.networks of {country.code}; if not, end it, find out "
            "what started it, and load the rules of domicile egress, which refuse it",
        )
    return ok(f"{len(seen)} connections, none abroad and none to another country")


def doors(country: Country, found: Iterable[Opening]) -> Finding:
    """Only the gateway listens where anybody can come."""
    every = list(found)
    outside = sorted({f"{title(one.pid)} ({one.pid}) listens at {one.local}" for one in every if not one.at_home})
    if outside:
        return warn(
            lines(outside),
            "name the network in residency.networks if it is the country's, and let a firewall keep others out",
        )
    return ok(f"{len(every)} listeners, on loopback, in the country's networks, or the gateway's")


def environments(country: Country, pids: Iterable[int]) -> Finding:
    """Usage reports are off, hubs are not asked, and no proxy carries anything on (R8)."""
    wanted = SILENCE if country.residency.allow_hub else {**SILENCE, **OFFLINE}
    talking, proxied, wiped, looked = [], [], 0, 0
    for pid in pids:
        environment = _environment(pid)
        if not environment:
            wiped += 1
            continue
        looked += 1
        missing = sorted(name for name, value in wanted.items() if environment.get(name) != value)
        talking += [f"{title(pid)} ({pid}) runs without {', '.join(missing)}"] if missing else []
        named = sorted(name for name, value in environment.items() if name.lower() in _PROXIES and value)
        proxied += [f"{title(pid)} ({pid}) has {', '.join(named)}"] if named else []
    if talking:
        return fail(lines(talking), "domicile down, then domicile up")
    if proxied:
        return warn(lines(proxied), "a proxy carries abroad what asks it: unset it, domicile down, then domicile up")
    if not looked:
        return warn("no process' environment can be read", "run domicile doctor as the user who runs domicile up")
    unread = f"; {wiped} wrote a title over theirs, and inherited it from these" if wiped else ""
    return ok(f"usage reports are off in {looked} processes, and hubs as the country says{unread}")


def rules(country: Country) -> Finding:
    """The nftables rules are loaded, are those of the country's file, and have refused nothing."""
    command = shutil.which("nft")
    made = f"domicile egress nftables {country.code} | nft -f -"
    if command is None:
        return warn(
            "no nftables on this machine: nothing enforces the policy here",
            "install nftables; in Kubernetes, domicile egress networkpolicy does it instead",
        )
    done = subprocess.run(
        [command, "-j", "list", "table", "inet", table(country.code)],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        denied = "not permitted" in done.stderr
        told = "the rules can be read by root only" if denied else "no rules are loaded: nothing enforces the policy"
        return warn(told, "run this as root" if denied else f"as root: {made}")
    return loaded(country, done.stdout)


def loaded(country: Country, listed: str) -> Finding:
    """What ``nft -j list table`` says."""
    counters = {one["counter"]["name"]: one["counter"] for one in json.loads(listed)["nftables"] if "counter" in one}
    made = f"domicile egress nftables {country.code} | nft -f -"
    if "abroad" not in counters or counters["abroad"].get("comment") != digest(country):
        return fail("the rules that are loaded are not those of the country's file", f"as root: {made}")
    refused = [f"{each['packets']} packets refused: {name}" for name, each in counters.items() if each["packets"]]
    if refused:
        return fail(lines(refused), "the kernel's log names who sent them: journalctl -k --grep 'domicile .* abroad'")
    return ok("loaded, as in the country's file; nothing was refused")


def _wrong(one: Talk) -> str:
    where = f"a process of {one.country}, {title(one.other)} ({one.other})" if one.peer is Peer.FOREIGN else "abroad"
    return f"{title(one.pid)} ({one.pid}) talks to {one.remote}: {where}"


def _environment(pid: int) -> Mapping[str, str]:
    try:
        found: dict[str, str] = psutil.Process(pid).environ()
    except GONE:
        return {}
    return found
