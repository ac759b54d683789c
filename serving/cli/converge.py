"""Make a plan so: nodes, applications, and what is written down of it. ``up`` and ``apply`` both do it here."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from serving.cli import policies
from serving.cli.applied import keep, last
from serving.cli.cluster import ClusterError, LocalCluster, Record
from serving.cli.deployments import deploying
from serving.cli.models import prepare_with_progress
from serving.cli.output import errors
from serving.cli.probe import ready
from serving.engine import cores
from serving.engine.models import prepared
from serving.planning.nouns import Action, CountryPlan, Plan
from serving.settings import Settings
from tenants.country import Country

if TYPE_CHECKING:
    from serving.cli.serve import State

POLL_S = 0.5
STOPPING = "STOPPING"
DRAIN_S = 600.0
"""How long a country that is removed may still answer, where nothing says how long its answers may take."""
NEW = (Action.ADD, Action.REPAIR)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be made so, and where."""

    plan: Plan
    files: Mapping[str, Country]
    """Every country that has a readable file."""
    timeout_s: float
    restart: bool = False
    """Replace every process, also where nothing differs."""

    @property
    def staying(self) -> list[Country]:
        """The countries that are to run, whether or not something is done about them."""
        return [self.files[each.country] for each in self.plan.countries if each.country in self.files]

    @property
    def removed(self) -> list[CountryPlan]:
        return [each for each in self.plan.countries if each.action is Action.REMOVE]

    @property
    def deployed(self) -> list[CountryPlan]:
        """Those that Ray Serve is told of anew."""
        idle = () if self.restart else (Action.NONE,)
        return [each for each in self.plan.countries if each.action not in (*idle, Action.REMOVE)]


def make_so(wanted: Wanted, cluster: LocalCluster, settings: Settings) -> None:
    """Returns when every country answers that it is ready, and those that were removed are gone.

    Raises:
        ClusterError: Ray did not start, an address belongs to somebody else, or a country did not come up in time.
        RecordsUnavailable: a decision cannot be recorded, so it was not carried out.
        ModelError, OSError: a model cannot be prepared; what runs cannot be written down.
    """
    _prepare(wanted.staying, settings)
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=errors) as bar:
        record = _nodes(cluster, wanted.staying, bar) if wanted.staying else cluster.record()
        if record is None:
            return
        # Imported here: Ray takes seconds, which nobody has to wait for who is refused.
        from serving.cli import serve

        with serve.joined(record):
            _deploy(wanted, cluster, settings)
            _wait(wanted.staying, bar, wanted.timeout_s)
            _remove(wanted.removed, cluster, settings)


def _deploy(wanted: Wanted, cluster: LocalCluster, settings: Settings) -> None:
    """Hand the countries to Ray Serve: those whose file changed, that do not stand, or all of them.

    Each is recorded first, and written down as what runs, so that a plan made meanwhile knows it.
    """
    from serving.cli import serve

    countries = [wanted.files[each.country] for each in wanted.deployed]
    for one in countries:
        _require_own(one, cluster)
    generations = {each.country: _generation(each, settings, restart=wanted.restart) for each in wanted.deployed}
    now = {code: state.deployments for code, state in serve.states([one.code for one in countries]).items()}
    addresses = {code: one.public_address for code, one in wanted.files.items()}
    with deploying(countries, now, restart=wanted.restart):
        for one in countries:
            keep(one, generations[one.code], settings)
        cluster.note({one.code: one.policy_digest for one in countries})
        serve.deploy(countries, settings, addresses, generations)


def _generation(each: CountryPlan, settings: Settings, *, restart: bool) -> str:
    """The one that runs, so that only what differs is replaced; a new one where all of it is to be."""
    kept = last(each.country, settings)
    if restart or each.action in NEW or kept is None:
        return f"-{secrets.token_hex(4)}"
    return kept.generation


def _remove(removed: Sequence[CountryPlan], cluster: LocalCluster, settings: Settings) -> None:
    from serving.cli import serve

    codes = [each.country for each in removed]
    if codes:
        policies.note_removed(codes, settings)
        serve.remove(codes, DRAIN_S)
        cluster.stop_raylets(codes)


def _prepare(countries: Sequence[Country], settings: Settings) -> None:
    for name in sorted({model.source.bundled for one in countries for model in one.models if model.source.bundled}):
        if not prepared(name, settings.models):
            prepare_with_progress(name, settings)


def _nodes(cluster: LocalCluster, countries: Sequence[Country], bar: Progress) -> Record:
    """The head and a labelled raylet for each country: those that are missing are started, side by side."""
    task = bar.add_task("Ray: starting")
    running = cluster.raylets()
    record = cluster.record()
    if record is None or "" not in running:
        cluster.stop()
        running = {}
        cluster.start_head()
        record = cluster.record()
        if record is None:
            raise ClusterError("the cluster's record cannot be written")
    missing = [one.code for one in countries if one.code not in running]
    own = sorted(os.sched_getaffinity(0))
    shares = {one.code: cores.share(own, slot, len(countries)) for slot, one in enumerate(countries)}
    started = [(code, cluster.start_raylet(record.address, code, shares[code])) for code in missing]
    for code, starting in started:
        cluster.finish(starting, f"the node of {code}")
    bar.update(task, description=f"Ray: {len(countries)} nodes, labelled {', '.join(one.code for one in countries)}")
    bar.stop_task(task)
    return record


def _require_own(country: Country, cluster: LocalCluster) -> None:
    """Gateways share their port with one another, so the kernel would let them share it with a stranger too."""
    if _free(country):
        return
    own = {process.pid for process in cluster.processes()}
    listening = (each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN)
    if not own & {each.pid for each in listening if each.laddr.port == country.port}:
        raise ClusterError(f"{country.code}: another program listens at {country.address}; see domicile doctor")


def _free(country: Country) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in country.gateway.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((country.gateway.host, country.port))
        except OSError:
            return False
        return True


def _wait(countries: Sequence[Country], bar: Progress, timeout_s: float) -> None:
    """Until every country's own address says that it is ready, and whoever was replaced has finished its answers.

    That finishing is not held against ``timeout_s``: it ends by itself, and nothing waits for it but this command.

    Raises:
        ClusterError: a country failed, or time is up. What did come up stays up.
    """
    from serving.cli import serve

    tasks = {one.code: bar.add_task(f"{one.code}: starting") for one in countries}
    left_s, looked = timeout_s, time.monotonic()
    waiting = {one.code: one for one in countries}
    while waiting:
        states = serve.states(list(waiting))
        for code, state in states.items():
            _show(bar, tasks[code], code, state)
            if state.phase == "failed":
                raise ClusterError(f"{code} did not come up: {state.message}")
            if state.running and ready(waiting[code]):
                bar.update(tasks[code], description=f"{code}: ready at {waiting[code].address}")
                bar.stop_task(tasks[code])
                del waiting[code]
        before, looked = looked, time.monotonic()
        if not any(STOPPING in counts for state in states.values() for counts in state.deployments.values()):
            left_s -= looked - before
        if waiting and left_s < 0:
            raise ClusterError(f"not ready within {timeout_s:.0f} s: {', '.join(waiting)}; see domicile status")
        time.sleep(POLL_S)


def _show(bar: Progress, task: TaskID, code: str, state: State) -> None:
    parts = [
        f"{deployment} {' '.join(f'{count} {name.lower()}' for name, count in counts.items())}"
        for deployment, counts in sorted(state.deployments.items())
    ]
    bar.update(task, description=f"{code}: {state.phase}; {', '.join(parts)}" if parts else f"{code}: {state.phase}")
