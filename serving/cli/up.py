"""``domicile up`` and ``domicile down``."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime
from typing import Annotated

import typer

from serving.cli.cluster import ClusterError, LocalCluster, Record
from serving.cli.converge import Wanted, make_so
from serving.cli.demo import demo_key
from serving.cli.deployments import taking_down
from serving.cli.output import console, emit_json, errors, fail
from serving.cli.plan import NOT_DONE, here, look_at, require_unrefused
from serving.cli.tenancy import AsJson
from serving.settings import Settings
from tenants.country import Country

DEFAULT_COUNTRIES = ("ee", "kr")
DOWN_S = 35.0
"""How long `down` lets answers finish: it is asked to end things, and a roll-out is what waits for every answer."""
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
    settings = here()
    cluster = LocalCluster(settings)
    cluster.enter()
    look = look_at(country or list(DEFAULT_COUNTRIES), cluster, settings)
    require_unrefused(look, settings)
    try:
        keys = {one.code: demo_key(one, settings, datetime.now(UTC)) for one in look.chosen}
        make_so(Wanted(look.plan, look.files, timeout, restart=restart), cluster, settings)
    except NOT_DONE as error:
        fail(str(error))
    chosen = look.chosen
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
                serve.remove(country, DOWN_S)
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


def _described(country: Country, key: str) -> dict[str, object]:
    models = [model.id for model in country.models]
    return {"country": country.code, "address": country.address, "key": key, "models": models}


def _drain(cluster: LocalCluster, record: Record | None) -> None:
    """Let answers finish, where the cluster still answers; where it does not there is nothing to wait for."""
    from serving.cli import serve

    if record is None or "" not in cluster.raylets():
        return
    try:
        with serve.joined(record):
            serve.remove(sorted(record.applied), DOWN_S)
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
