"""What runs, as a plan sees it: looks at the cluster, its processes and what was written down, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from serving.cli.applied import last
from serving.cli.cluster import ClusterError, LocalCluster, Record
from serving.cli.inventory import actors, titles
from serving.planning.nouns import Applied, Observed, Running
from serving.settings import Settings

RUNNING = "RUNNING"


def observe(cluster: LocalCluster, settings: Settings) -> Observed:
    """One installation as it is now. Where Ray does not answer, only that is known."""
    record = cluster.record()
    if record is None or "" not in cluster.raylets():
        return Observed(alive=False)
    applied = {code: _applied(code, digest, settings) for code, digest in sorted(record.applied.items())}
    # Imported here: Ray takes seconds, which nobody has to wait for where nothing is up.
    from serving.cli import serve

    try:
        with serve.joined(record):
            nodes = serve.nodes()
            states = serve.states(sorted({*applied, *serve.deployed()}))
    except ClusterError:
        return Observed(alive=True, answers=False, applied=applied, running=_unknown(record))
    living = titles(cluster.processes())
    running = {
        code: Running(
            state.phase,
            state.message,
            {name: counts.get(RUNNING, 0) for name, counts in state.deployments.items()},
            _living(living, code, state.deployments),
        )
        for code, state in states.items()
    }
    return Observed(alive=True, nodes=nodes, applied=applied, running=running)


def _applied(code: str, digest: str, settings: Settings) -> Applied | None:
    kept = last(code, settings)
    return kept.applied if kept is not None and kept.applied.digest == digest else None


def _unknown(record: Record) -> dict[str, Running]:
    return {code: Running("unknown") for code in record.applied}


def _living(living: Mapping[int, str], code: str, deployments: Iterable[str]) -> dict[str, int]:
    return {name: len(pids) for name, pids in actors(living, code, deployments).items()}
