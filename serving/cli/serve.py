"""The driver's side of Ray Serve: deploy countries, watch them come up, take them down.

Import it after :meth:`serving.cli.cluster.LocalCluster.enter`: Ray reads how to prove who it is when it is imported.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass

import ray
from ray import serve
from ray.serve.api import RunTarget
from ray.serve.schema import ApplicationStatus, ServeStatus

from serving.app import application, application_name
from serving.cli.cluster import ClusterError, Record
from serving.placement import Node
from serving.replicas import ground
from serving.replicas.cell import Unseen
from serving.settings import Settings
from tenants.country import Country

NAMESPACE = "domicile"
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class State:
    """How a country's application stands."""

    phase: str
    """One of ``absent``, ``starting``, ``running``, ``unhealthy``, ``failed``, ``ending``."""
    deployments: Mapping[str, Mapping[str, int]]
    """Deployment to replica state to count."""
    message: str

    @property
    def running(self) -> bool:
        return self.phase == "running"


_PHASES = {
    ApplicationStatus.NOT_STARTED: "starting",
    ApplicationStatus.DEPLOYING: "starting",
    ApplicationStatus.RUNNING: "running",
    ApplicationStatus.UNHEALTHY: "unhealthy",
    ApplicationStatus.DEPLOY_FAILED: "failed",
    ApplicationStatus.DELETING: "ending",
}
ABSENT = State("absent", {}, "")


@contextmanager
def joined(record: Record) -> Iterator[None]:
    """Join the running cluster as a driver.

    Raises:
        ClusterError: nobody answers there.
    """
    try:
        ray.init(
            address=record.address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"no cluster answers at {record.address}") from error
    # Serve's own progress lines would run through ours.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        # Ray prints the cluster's mishaps, such as a node that was lost, where a script waits for JSON.
        with redirect_stdout(sys.stderr):
            yield
    finally:
        ray.shutdown()


def deploy(
    countries: Sequence[Country],
    settings: Settings,
    addresses: Mapping[str, str],
    generations: Mapping[str, str],
) -> None:
    """Begin to bring countries up. Ray Serve's own HTTP proxies stay off (DESIGN.md, route 1)."""
    serve.start(proxy_location="Disabled")
    targets = [
        RunTarget(
            application(country, settings, addresses, generations.get(country.code, "")),
            application_name(country.code),
            route_prefix=None,
        )
        for country in countries
    ]
    if targets:
        serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


def deployed() -> list[str]:
    """The codes of the countries that have an application, whoever deployed it."""
    prefix = application_name("")
    return sorted(name.removeprefix(prefix) for name in serve.status().applications if name.startswith(prefix))


def nodes() -> tuple[Node, ...]:
    """The living nodes of the cluster. Raises :class:`ClusterError`."""
    try:
        return tuple(sorted(ground.nodes(), key=lambda node: (node.country, node.id)))
    except Unseen as error:
        raise ClusterError("the cluster's nodes cannot be listed") from error


def states(codes: Sequence[str]) -> dict[str, State]:
    """How the countries' applications stand."""
    status = serve.status()
    return {code: _state(status, application_name(code)) for code in codes}


def remove(codes: Sequence[str], within_s: float) -> None:
    """Drain and remove applications. Returns when they are gone, or when time is up and they still drain."""
    for code in codes:
        # Serve's own waiting ends with an error after a minute, and an answer may take ten.
        serve.delete(application_name(code), _blocking=False)
    deadline = time.monotonic() + within_s
    while any(state.phase != "absent" for state in states(codes).values()) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def _state(status: ServeStatus, name: str) -> State:
    found = status.applications.get(name)
    if found is None:
        return ABSENT
    deployments = {
        deployment: {str(state): count for state, count in one.replica_states.items()}
        for deployment, one in found.deployments.items()
    }
    failing = [one.message for one in found.deployments.values() if one.message]
    return State(_PHASES.get(found.status, "starting"), deployments, found.message or "; ".join(failing))
