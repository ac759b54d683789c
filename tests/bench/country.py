"""A country's gateway as production composes it, in front of one replica: ``python -m tests.bench.country PORT``.

Everything is real but the replica and Ray: the tenant's own file, a ground with store and keys, all steps. With
``unrecorded`` for a second argument nothing is noted and no usage is asked for, to tell what that costs.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime

import uvloop

from serving import chat
from serving.cli.demo import demo_key
from serving.cli.ports import free_port
from serving.gateway.house import Gateway
from serving.placement import Replica
from serving.records.telemetry.visit import Visit
from serving.replicas.table import Table
from serving.settings import Settings
from serving.steps.record import Recording
from serving.types import Address
from tenants.country import Collector, Telemetry
from tenants.registry import Registry

HOST = "127.0.0.1"
CODE = "ee"
UNRECORDED = "unrecorded"
UNTOLD = "untold"


async def main(replica_port: int, *words: str) -> None:
    if UNRECORDED in words:
        _record_nothing()
    if UNTOLD in words:
        _tell_nothing()
    settings = Settings.from_environment()
    registry = Registry.load(settings.countries)
    (shipped,) = registry.select([CODE])
    country = shipped.model_copy(
        update={"gateway": shipped.gateway.model_copy(update={"host": HOST, "port": free_port()})}
    )
    for endpoint, _, sampling in (word.partition("=") for word in words if "=" in word):
        telling = Telemetry(collector=Collector(endpoint=endpoint), sampling=float(sampling))
        country = country.model_copy(update={"telemetry": telling})
    model = country.models[0].id
    table = Table()
    table.report(model, (Replica("stub", CODE, model, Address(HOST, replica_port), context_length=4096),))
    key = demo_key(country, settings, datetime.now(UTC))
    door = Gateway(country, settings, {one.code: one.public_address for one in registry}, table, "bench")
    await door.start()
    print(json.dumps({"port": door.port, "key": key, "model": model}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await door.stop()


def _record_nothing() -> None:
    setattr(chat, "accounted", lambda prompt: prompt)  # noqa: B010 - a module's name, which no type checker lets go
    setattr(Recording, "_ended", lambda *_: None)  # noqa: B010 - likewise a method


def _tell_nothing() -> None:
    for name in ("end", "receipt", "answered"):
        setattr(Visit, name, lambda *_: None)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), *sys.argv[2:]))
