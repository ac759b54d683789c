"""Ray Serve's request router, over the rules of :mod:`serving.placement`.

The gateway does not send requests through Serve: it reads the table that this router keeps in the gateway's
own process, fed by Serve's long poll, and picks from it in microseconds. Requests that do come through a
handle (there are none in normal service) follow the same rules.
"""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from serving.placement import Replica
from serving.types import Address


class CountryRouter(RequestRouter):  # type: ignore[misc]
    """Publishes what replicas say of themselves to :data:`serving.replicas.table.live`."""

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        # Imported here: Serve may ship this class by value, and a table shipped along would be a copy.
        from serving.replicas.table import live

        super().update_replicas(replicas)
        seen = [read(replica.replica_id.unique_id, replica.routing_stats) for replica in replicas]
        by_model: dict[str, list[Replica]] = {}
        for replica in filter(None, seen):
            by_model.setdefault(replica.model, []).append(replica)
        model = str(self._deployment_id.name)
        live.report(model, tuple(by_model.get(model, ())))

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        return [candidate_replicas]


def read(replica_id: str, stats: dict[str, Any]) -> Replica | None:
    """What a replica published, or ``None`` while it has published nothing yet."""
    if not stats:
        return None
    return Replica(
        id=replica_id,
        country=stats["country"],
        model=stats["model"],
        address=Address(stats["host"], stats["port"]),
        draining=stats["draining"],
        outstanding_tokens=stats["outstanding_tokens"],
        context_length=stats["context_length"],
        node=stats["node"],
        model_digest=stats["model_digest"],
    )
