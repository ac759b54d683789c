"""Which of our processes does what for which country, and the memory that they take."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import psutil

GONE = (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess)


def titles(processes: Iterable[psutil.Process]) -> dict[int, str]:
    """Process id to the name that the process goes by."""
    found = {}
    for process in processes:
        try:
            found[process.pid] = (process.cmdline() or [""])[0]
        except GONE:
            continue
    return found


def actors(titles: Mapping[int, str], country: str, deployments: Iterable[str]) -> dict[str, list[int]]:
    """Deployment to the ids of the processes that Serve runs for it."""
    return {
        deployment: sorted(pid for pid, title in titles.items() if _is(title, country, deployment))
        for deployment in deployments
    }


def _is(title: str, country: str, deployment: str) -> bool:
    name = f"ray::ServeReplica:domicile-{country}:{deployment}"
    # While a method runs, Ray puts its name behind the actor's.
    return title == name or (title.startswith(f"{name}.") and title.removeprefix(f"{name}.").isidentifier())


def listening(pid: int, hosts: Collection[str]) -> list[tuple[str, int]]:
    """Where a process accepts connections, of some of this machine's addresses."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except GONE:
        return []
    return sorted(
        (each.laddr.ip, each.laddr.port)
        for each in connections
        if each.status == psutil.CONN_LISTEN and each.laddr.ip in hosts
    )


def family_memory(pid: int) -> int:
    """Bytes of a process and everything below it; a page that several share is counted once (PSS)."""
    try:
        parent = psutil.Process(pid)
        return memory([parent, *parent.children(recursive=True)])
    except GONE:
        return 0


def memory(processes: Iterable[psutil.Process]) -> int:
    """Bytes of some processes; a page that several share is counted once (PSS)."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except GONE:
            continue
    return total
