"""The replica as Ray Serve deploys it: placed by label, checked, kept healthy, drained."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from dataclasses import dataclass

from serving.engine import cores
from serving.engine.arguments import arguments, command_line, device
from serving.engine.checkpoint import digest
from serving.engine.models import weights
from serving.placement import CORES_LABEL
from serving.records.journal import CLOSE_S, Journal
from serving.records.refusals import Refusals
from serving.records.telemetry import courier
from serving.replicas import ground
from serving.replicas.cell import Cell
from serving.replicas.claim import CellKey
from serving.replicas.server import ReplicaServer
from serving.settings import Settings
from tenants.country import Country, Model
from tenants.ground import CountryGround

log = logging.getLogger(__name__)

DRAIN_GRACE_S = 30.0
CHECKPOINTS = "checkpoints"
"""Where a country remembers the digests of its models' files."""


@dataclass(frozen=True, slots=True)
class CpuSlots:
    """How a node's cores are divided: this deployment's replicas take slots from ``first`` on, of ``total``."""

    first: int
    total: int


class ReplicaDeployment:
    """One vLLM engine of one country. Serve calls the methods; callers come over the private listener."""

    async def __init__(  # type: ignore[misc] # Ray Serve awaits it
        self, country: Country, model: Model, settings: Settings, slots: CpuSlots
    ) -> None:
        """
        Raises:
            ForeignGround: the node is not the country's.
            Unseen: the cell's nodes cannot be listed.
            ArgumentsRefused, ModelError: the tenant's file asks for what cannot be started.
            RecordsUnavailable: nothing could be recorded there.
        """
        # Imported here: it takes seconds, and only where an engine runs.
        from serving.engine.vllm import VllmEngine

        labels = ground.stand_in(country.code)
        environment = self._cores(labels, slots) if device(model.engine) == "cpu" else {}
        line = command_line(arguments(model, weights(model.source, settings.models), country.slo))
        self._engine = VllmEngine(line, environment, country.slo)
        self._country = country
        self._model = model
        self._loop = asyncio.get_running_loop()
        key = CellKey(CountryGround(settings.country(country.code), country.code).cell_key())
        self._journal = Journal.for_country(country, settings).start()
        self._refusals = Refusals(self._journal.note)
        self._telemetry = self._journal.telemetry("domicile-replica", f"{country.code}-{ground.site()}")
        self._telemetry.hear_logs()
        self._cell = await Cell.watched(country, ground.nodes)
        self._server = ReplicaServer(
            self._engine, key, country.code, self._refusals, cell=self._cell, telemetry=self._telemetry
        )
        self._address = await self._server.start(settings.private_host or ground.address())
        # After the engine has read the files: what it loaded is then still in the machine's memory.
        remembered = settings.country(country.code) / CHECKPOINTS
        self._digest = await asyncio.to_thread(digest, model.source, settings.models, remembered)
        # Ray turns SIGTERM into an orderly exit of the main thread; this runs there, while the loop still serves.
        atexit.register(self._drain_at_exit)
        log.info("replica of %s serves %s at %s", country.code, model.id, self._address)

    @staticmethod
    def _cores(labels: dict[str, str], slots: CpuSlots) -> dict[str, str]:
        # Imported here for the same reason as the engine: only Serve's own processes know a replica context.
        from ray import serve

        label = labels.get(CORES_LABEL)
        own = cores.parse(label) if label else tuple(os.sched_getaffinity(0))
        slot = (slots.first + serve.get_replica_context().rank.local_rank) % slots.total
        return cores.environment(cores.share(own, slot, slots.total))

    async def check_health(self) -> None:
        """Raises when the engine is dead: Serve then replaces this replica."""
        await self._engine.check()

    async def record_routing_stats(self) -> dict[str, str | int | bool]:
        """What gateways know of this replica: where it is, whose it is, how much it has to do."""
        load = self._engine.load()
        facts = self._engine.facts()
        return {
            "country": self._country.code,
            "model": self._model.id,
            "host": self._address.host,
            "port": self._address.port,
            "node": ground.site(),
            "model_digest": self._digest,
            "pid": os.getpid(),
            "draining": self._server.draining,
            "outstanding_tokens": load.outstanding_tokens,
            "context_length": facts.context_length,
        }

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """The load as Serve's autoscaler sees it: requests do not pass through Serve, so it counts none itself."""
        load = self._engine.load()
        return {"running": load.running, "waiting": load.waiting, "outstanding_tokens": load.outstanding_tokens}

    async def ready(self) -> dict[str, str | int | bool]:
        return await self.record_routing_stats()

    async def __del__(self) -> None:
        """Serve's orderly end: gateways have already been told, so only what is in flight is waited for."""
        if hasattr(self, "_address"):
            await self._server.drain(DRAIN_GRACE_S)
            await self._server.stop()
            self._cell.close()
            self._leave_records()

    def _drain_at_exit(self) -> None:
        if self._loop.is_running():
            ending = asyncio.run_coroutine_threadsafe(self._drained(), self._loop)
            ending.result(DRAIN_GRACE_S + CLOSE_S + courier.CLOSE_S + 1)

    async def _drained(self) -> None:
        await self._server.drain(DRAIN_GRACE_S)
        self._leave_records()

    def _leave_records(self) -> None:
        # On this thread: nobody is served any more, and a process that exits starts no other.
        self._telemetry.close()
        self._refusals.settle()
        self._journal.close()
