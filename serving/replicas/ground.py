"""Where a Ray actor of ours stands, checked against the country it serves (R2)."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray

from serving.placement import COUNTRY_LABEL, Node
from serving.replicas.cell import Unseen
from serving.types import Address


class ForeignGround(RuntimeError):
    """The process was placed on a node that does not carry its country's label. It serves nothing there."""


def stand_in(country: str) -> dict[str, str]:
    """The labels of the node that this actor runs on. From then on it leaves no memory dump, nor do its children.

    Ray Serve's own listener, which it opens when a deployment is made, will be at the node's own address.

    Raises:
        ForeignGround: the scheduler's word is not enough; a node that is not the country's is refused.
    """
    labels: dict[str, str] = ray.get_runtime_context().get_node_labels()
    if labels.get(COUNTRY_LABEL) != country:
        raise ForeignGround(
            f"a process of {country} was placed on a node labelled {labels.get(COUNTRY_LABEL, 'with no country')}"
        )
    _dump_nothing()
    _listen_at_home()
    return labels


def _dump_nothing() -> None:
    """Memory holds prompts, and a dump of it is a file like any other (R7).

    The limit keeps the kernel from writing one; the filter empties those that it hands to a program instead, whatever
    that makes of limits.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # a kernel without dumps has no filter for them
        Path("/proc/self/coredump_filter").write_text("0")


def _listen_at_home() -> None:
    """Serve would open its door for calls between deployments, which nobody of ours makes, on every interface."""
    from ray.serve._private import replica

    everywhere = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, _: everywhere(server, str(Address(address(), 0)))


def nodes() -> list[Node]:
    """The living nodes of the cluster, as its head knows them. Asks over the network.

    Raises:
        Unseen: the head does not answer.
    """
    try:
        known: list[dict[str, Any]] = ray.nodes()
    except ray.exceptions.RayError as error:
        raise Unseen(type(error).__name__) from error
    return [Node(_short(each["NodeID"]), each["Labels"].get(COUNTRY_LABEL, "")) for each in known if each["Alive"]]


def address() -> str:
    """The node's own address, for gateways on the country's other nodes."""
    host: str = ray.util.get_node_ip_address()
    return host


def site() -> str:
    """A short name of the node, for answers and audit."""
    return _short(ray.get_runtime_context().get_node_id())


def _short(node_id: str) -> str:
    return str(node_id)[:8]
