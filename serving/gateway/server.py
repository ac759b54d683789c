"""The gateway as Ray Serve deploys it: placed by label, checked, listening on the country's own address."""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
from collections.abc import Mapping

from ray.serve.handle import DeploymentHandle

from serving.gateway.house import Gateway
from serving.records.journal import CLOSE_S
from serving.records.telemetry import courier
from serving.records.telemetry.listener import LOOPBACK
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
            RecordsUnavailable: nothing could be recorded there.
        """
        # Imported here: the router reports to the table of this process, and this class may travel by value.
        from serving.replicas.table import live

        ground.stand_in(country.code)
        # A handle makes its router, which fills the table, when it is first given options.
        self._handles = [handle.options(method_name="ready") for handle in replicas.values()]
        self._cell = await Cell.watched(country, ground.nodes)
        private = LOOPBACK if country.telemetry.prometheus.listen == "loopback" else ground.address()
        self._gateway = Gateway(
            country, settings, addresses, live, ground.site(), cell=self._cell, private_host=private
        )
        self._gateway.telemetry.hear_logs()
        await self._gateway.start()
        self._loop = asyncio.get_running_loop()
        # Ray turns SIGTERM into an orderly exit of the main thread; this runs there, while the loop still serves.
        atexit.register(self._stop_at_exit)
        # What Ray and FastAPI brought stays to the end: a full collection would stop every stream to walk through it.
        gc.collect()
        gc.freeze()
        log.info("gateway of %s listens on port %s", country.code, self._gateway.port)

    async def ready(self) -> bool:
        return True

    async def __del__(self) -> None:
        """Serve's orderly end: accept nothing more, let running answers finish, leave no record unwritten."""
        if hasattr(self, "_gateway"):
            await self._gateway.stop(DRAIN_GRACE_S)
            self._cell.close()

    def _stop_at_exit(self) -> None:
        if self._loop.is_running():
            ending = asyncio.run_coroutine_threadsafe(self._gateway.stop(DRAIN_GRACE_S), self._loop)
            ending.result(DRAIN_GRACE_S + CLOSE_S + courier.CLOSE_S + 1)
