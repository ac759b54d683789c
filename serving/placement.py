"""Which replicas may serve a request, and which of them serves it best. Pure: no clock, no I/O, no Ray.

Filter, score, pick. The country is a filter and never a score: a foreign replica is not a worse choice,
it is no choice (R1, R2, R5).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

from serving.types import Address

COUNTRY_LABEL = "domicile/country"
"""The node label that says whose ground a node is. Its value is the country's code."""

CORES_LABEL = "domicile/cores"
"""The cores of a machine that are the country's, as :func:`serving.engine.cores.parse` reads them."""


UNKNOWN_NODE = "unknown"
UNKNOWN_DIGEST = "sha256:" + "0" * 64
"""Of a replica that has not said what it serves. No content has this digest."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica as the gateway sees it at one moment."""

    id: str
    country: str
    model: str
    address: Address
    healthy: bool = True
    draining: bool = False
    outstanding_tokens: int = 0
    """Prompt and answer tokens promised but not yet served, as far as is known."""
    context_length: int = 0
    """Most tokens a prompt and its answer may have together."""
    node: str = UNKNOWN_NODE
    """A short name of the node that it runs on."""
    model_digest: str = UNKNOWN_DIGEST
    """What it serves, to the letter: ``sha256:`` and hex."""


@dataclass(frozen=True, slots=True)
class Node:
    """A living node of a Ray cluster."""

    id: str
    """A short name, for answers and logs."""
    country: str
    """What its label says; empty where it has none."""


@dataclass(frozen=True, slots=True)
class Want:
    """What a request needs of a replica."""

    country: str
    model: str
    prefix: bytes
    """Equal for requests that share a cacheable beginning. Already tied to the organisation (R9)."""
    prompt_tokens: int
    """An estimate: what a prefill costs where the prefix is not cached."""


def strangers(country: str, nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes of other countries. A cell has none; a node without the label serves nobody, as a head does not."""
    return tuple(node for node in nodes if node.country not in ("", country))


def eligible(want: Want, replicas: Iterable[Replica]) -> list[Replica]:
    """The replicas that may serve: of the country, of the model, healthy, not draining."""
    return [
        replica
        for replica in replicas
        if replica.country == want.country and replica.model == want.model and replica.healthy and not replica.draining
    ]


def home_of(prefix: bytes, replicas: Iterable[Replica]) -> str:
    """The replica where a prefix is expected in the cache, by rendezvous hashing (Thaler and Ravishankar, 1998).

    Every gateway finds the same one without talking to another, and a replica that comes or goes moves
    only its own prefixes.
    """
    return max(
        (replica.id for replica in replicas), key=lambda id_: blake2b(prefix + id_.encode(), digest_size=8).digest()
    )


def choose(want: Want, replicas: Iterable[Replica]) -> Replica | None:
    """The eligible replica with the least work ahead of the first token, in tokens; ``None`` where there is none.

    Away from its prefix's home a request pays for the whole prefill, so affinity gives way by itself as soon
    as the home has that much more to do than another.
    """
    candidates = eligible(want, replicas)
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    home = home_of(want.prefix, candidates)
    return min(
        candidates,
        key=lambda replica: (
            replica.outstanding_tokens + (0 if replica.id == home else want.prompt_tokens),
            replica.id,
        ),
    )
