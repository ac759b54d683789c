"""``domicile up`` and ``domicile down``."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from serving.cli.cells import NotAlone, alone
from serving.cli.cluster import LOOPBACK, ClusterError, LocalCluster, Record
from serving.cli.demo import demo_key
from serving.cli.deployments import deploying, taking_down
from serving.cli.models import prepare_with_progress
from serving.cli.output import USAGE, console, emit_json, errors, fail
from serving.cli.probe import ready
from serving.cli.tenancy import AsJson
from serving.engine import cores
from serving.engine.arguments import ArgumentsRefused, arguments
from serving.engine.models import ModelError, prepared, weights
from serving.settings import Settings
from tenants.country import Country
from tenants.errors import TenantError
from tenants.ground import GroundError
from tenants.registry import Registry

if TYPE_CHECKING:
    from serving.cli.serve import State

DEFAULT_COUNTRIES = ("ee", "kr")
POLL_S = 0.5
NOT_PACED = (
    "First come, first served: an organisation that floods makes the others wait, nobody is turned away early with a "
    "time to come back, and steps do not keep the inter-token promise."
)
CountryOption = Annotated[
    list[str] | None, typer.Option("--country", "-c", metavar="CC", help="A country's code; may be repeated.")
]


def up(
    country: CountryOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait until every country is ready.")] = 900.0,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay until SIGTERM or Ctrl-C, then take everything down.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Replace gateways and replicas one by one, also where nothing differs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring countries up and return when they are ready. Run again, it changes only what differs."""
    # One machine: the gateways are where the replicas are, so nobody else needs to reach those.
    settings = replace(Settings.from_environment(), private_host=LOOPBACK)
    cluster = LocalCluster(settings)
    cluster.enter()
    # Imported here: Ray takes seconds, which every other command can do without.
    from serving.cli import serve

    try:
        registry = Registry.load(settings.countries)
        chosen = registry.select(country or DEFAULT_COUNTRIES)
        alone(chosen, [registry.get(code) or code for code in cluster.raylets() if code])
        _prepare(chosen, settings)
        for one in chosen:
            _validate(one, settings)
        keys = {one.code: demo_key(one, settings, datetime.now(UTC)) for one in chosen}
        with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=errors) as bar:
            record = _nodes(cluster, chosen, bar)
            with serve.joined(record):
                addresses = {one.code: one.public_address for one in registry}
                _converge(cluster, record, chosen, settings, addresses, restart=restart)
                _wait(chosen, bar, timeout)
    except TenantError as error:
        fail(str(error), USAGE)
    except (ArgumentsRefused, ModelError, ClusterError, GroundError, NotAlone) as error:
        fail(str(error))
    if as_json:
        emit_json({"countries": [_described(one, keys[one.code]) for one in chosen]})
    else:
        for one in chosen:
            _greet(one, keys[one.code])
    if foreground:
        _until_told()
        down()


def down(country: CountryOption = None, as_json: AsJson = False) -> None:
    """End what ``up`` started, and nothing else; also after a crash."""
    settings = Settings.from_environment()
    cluster = LocalCluster(settings)
    cluster.enter()
    from serving.cli import serve

    record = cluster.record()
    if record is not None:
        taking_down([code for code in record.applied if not country or code in country], settings)
    if country and record is not None:
        try:
            with serve.joined(record):
                serve.remove(country)
        except ClusterError as error:
            fail(str(error))
        ended = cluster.stop_raylets(country)
    else:
        _drain(cluster, record)
        ended = cluster.stop()
    if as_json:
        emit_json({"ended": ended})
    else:
        console.print(f"ended {ended} processes" if ended else "nothing was running")


def _until_told() -> None:
    """For containers, where the process that was started is the one that is told to end."""
    told = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: told.set())
    told.wait()


def _validate(country: Country, settings: Settings) -> None:
    """Refuse, before anything starts, what could not start."""
    for model in country.models:
        arguments(model, weights(model.source, settings.models), country.slo)


def _described(country: Country, key: str) -> dict[str, object]:
    models = [model.id for model in country.models]
    return {"country": country.code, "address": country.address, "key": key, "models": models}


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


def _converge(
    cluster: LocalCluster,
    record: Record,
    countries: Sequence[Country],
    settings: Settings,
    addresses: dict[str, str],
    *,
    restart: bool,
) -> None:
    """Deploy the countries whose file changed since they were deployed, or that do not stand; with ``restart``, all.

    Raises:
        ClusterError: the address of a country that is not up yet belongs to somebody else.
    """
    from serving.cli import serve

    now = serve.states([one.code for one in countries])
    absent = [one for one in countries if now[one.code].phase in ("absent", "failed")]
    changed = [
        one for one in countries if restart or one in absent or record.applied.get(one.code) != serve.fingerprint(one)
    ]
    for one in absent:
        # Gateways share their port with one another, so the kernel would let them share it with a stranger too.
        if not _free(one):
            raise ClusterError(f"{one.code}: another program listens at {one.address}; see domicile doctor")
    with deploying(changed, {code: state.deployments for code, state in now.items()}, restart=restart):
        serve.deploy(changed, settings, addresses)
    applied = {one.code: serve.fingerprint(one) for one in changed}
    cluster.write(Record(record.address, {**record.applied, **applied}))


def _free(country: Country) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in country.gateway.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((country.gateway.host, country.port))
        except OSError:
            return False
        return True


def _wait(countries: Sequence[Country], bar: Progress, timeout_s: float) -> None:
    """Until every country's own address says that it is ready.

    Raises:
        ClusterError: a country failed, or time is up. What did come up stays up.
    """
    from serving.cli import serve

    tasks = {one.code: bar.add_task(f"{one.code}: starting") for one in countries}
    deadline = time.monotonic() + timeout_s
    waiting = {one.code: one for one in countries}
    while waiting:
        for code, state in serve.states(list(waiting)).items():
            _show(bar, tasks[code], code, state)
            if state.phase == "failed":
                raise ClusterError(f"{code} did not come up: {state.message}")
            if state.running and ready(waiting[code]):
                bar.update(tasks[code], description=f"{code}: ready at {waiting[code].address}")
                bar.stop_task(tasks[code])
                del waiting[code]
        if time.monotonic() > deadline:
            raise ClusterError(f"not ready within {timeout_s:.0f} s: {', '.join(waiting)}; see domicile status")
        time.sleep(POLL_S)


def _show(bar: Progress, task: TaskID, code: str, state: State) -> None:
    parts = [
        f"{deployment} {' '.join(f'{count} {name.lower()}' for name, count in counts.items())}"
        for deployment, counts in sorted(state.deployments.items())
    ]
    bar.update(task, description=f"{code}: {state.phase}; {', '.join(parts)}" if parts else f"{code}: {state.phase}")


def _drain(cluster: LocalCluster, record: Record | None) -> None:
    """Let answers finish, where the cluster still answers; where it does not there is nothing to wait for."""
    from serving.cli import serve

    if record is None or "" not in cluster.raylets():
        return
    try:
        with serve.joined(record):
            serve.remove(sorted(record.applied))
    except ClusterError:
        return


def _greet(country: Country, key: str) -> None:
    for model in country.models:
        if model.engine.scheduler == "vllm":
            errors.print(f"[yellow]{country.code}: {model.id} has scheduler: vllm.[/] {NOT_PACED}", soft_wrap=True)
    console.print(f"\n[bold]{country.english_name}[/] ({country.code})  {country.address}/v1")
    console.print(f"  key  {key}", soft_wrap=True)
    body = f'{{"model": "{country.models[0].id}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    console.print(
        f"  curl {country.address}/v1/chat/completions -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/json' -d '{body}'",
        soft_wrap=True,
    )
