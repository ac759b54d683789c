"""The gateway as Ray Serve deploys it: placed by label, checked, listening on the country's own address."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Mapping

from ray.serve.handle import DeploymentHandle

from serving.gateway.house import listener
from serving.records.journal import Journal
from serving.records.telemetry.listener import private
from serving.replicas import ground
from serving.replicas.cell import Cell
from serving.settings import Settings
from tenants.country import Country

log = logging.getLogger(__name__)

DRAIN_GRACE_S = 30.0


class GatewayDeployment:
    """One gateway process. Serve places it and asks for its health; callers come over its own listener."""

    async def __init__(  # type: ignore[misc] # Ray Serve awaits it
        self,
        country: Country,
        settings: Settings,
        addresses: Mapping[str, str],
        replicas: Mapping[str, DeploymentHandle],
    ) -> None:
        """
        Raises:
            ForeignGround: the node is not the country's.
            Unseen: the cell's nodes cannot be listed.
            PortTaken: somebody else listens on the country's address.
        """
        # Imported here: the router reports to the table of this process, and this class may travel by value.
        from serving.replicas.table import live

        ground.stand_in(country.code)
        # A handle makes its router, which fills the table, when it is first given options.
        self._handles = [handle.options(method_name="ready") for handle in replicas.values()]
        journal, site = Journal.for_country(country, settings), ground.site()
        self._telemetry = journal.telemetry("domicile-gateway", f"{country.code}-{site}")
        self._telemetry.hear_logs()
        host = "127.0.0.1" if country.telemetry.prometheus.listen == "loopback" else ground.address()
        self._metrics = await private(self._telemetry.page, host, country.metrics_port)
        self._cell = await Cell.watched(country, ground.nodes)
        self._listener = listener(country, settings, addresses, live, site, self._telemetry, cell=self._cell)
        await self._listener.start()
        # What Ray and FastAPI brought stays to the end: a full collection would stop every stream to walk through it.
        gc.collect()
        gc.freeze()
        log.info("gateway of %s listens on port %s", country.code, self._listener.port)

    async def ready(self) -> bool:
        return True

    async def __del__(self) -> None:
        """Serve's orderly end: accept nothing more, let running answers finish."""
        if hasattr(self, "_listener"):
            await self._listener.stop(DRAIN_GRACE_S)
            self._cell.close()
            await self._metrics.stop()
            await asyncio.to_thread(self._telemetry.close)
