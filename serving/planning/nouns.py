"""The nouns of a plan: what was seen to run, and what would be done about it. None holds a file or a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import JsonValue

from serving.placement import Node

Policy = Mapping[str, JsonValue]
"""A tenant's file as it was parsed, defaults included."""


@dataclass(frozen=True, slots=True)
class Part:
    """One deployment of a country: what its processes were made from, and how many there are to be."""

    digest: str
    replicas: int
    spare: bool
    """Whether a roll-out starts a new process before it ends an old one."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What was last made so."""

    digest: str
    policy: Policy
    parts: Mapping[str, Part]


@dataclass(frozen=True, slots=True)
class Running:
    """How a country's application was seen to stand."""

    phase: str = "absent"
    """One of ``absent``, ``starting``, ``running``, ``unhealthy``, ``failed``, ``ending``, ``unknown``."""
    message: str = ""
    replicas: Mapping[str, int] = field(default_factory=dict)
    """Deployment to how many of its replicas run, as Ray Serve counts them."""
    processes: Mapping[str, int] | None = None
    """Deployment to how many of its processes live, where they can be counted."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen of one installation at one moment."""

    alive: bool
    """Whether there is a cluster."""
    answers: bool = True
    """Whether it answered. Where it did not, nothing is known of what runs."""
    nodes: tuple[Node, ...] = ()
    applied: Mapping[str, Applied | None] = field(default_factory=dict)
    """Countries that were made to run; ``None`` where nobody knows any more from which file."""
    running: Mapping[str, Running] = field(default_factory=dict)


class Action(StrEnum):
    """What is done about a country."""

    NONE = "none"
    ADD = "add"
    CHANGE = "change"
    REPAIR = "repair"
    REMOVE = "remove"


class How(StrEnum):
    """What is done about a deployment. In none of them is a running stream dropped."""

    START = "start"
    SCALE = "scale"
    ROLL = "roll"
    """Processes are replaced one by one, a new one first or while others serve."""
    PAUSE = "pause"
    """The only process is replaced, and nothing serves until the new one does: new requests get 503."""
    END = "end"


@dataclass(frozen=True, slots=True)
class Change:
    """One value of the file. ``None`` is also where there is none."""

    path: str
    before: JsonValue
    after: JsonValue


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to one deployment."""

    deployment: str
    how: How
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Drift:
    """Where what runs is not what was made so."""

    kind: str
    """One of ``edited``, ``replicas``, ``processes``, ``node``, ``label``, ``application``, ``unknown``."""
    what: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a country's file is not applied."""

    country: str
    location: str
    rule: str
    """Empty for a mistake that weakens no rule."""
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class CountryPlan:
    """What would be done about one country."""

    country: str
    name: str
    address: str
    isolation: str
    action: Action
    digest: str | None
    former: str | None
    changes: tuple[Change, ...] = ()
    steps: tuple[Step, ...] = ()
    drift: tuple[Drift, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, or why nothing is."""

    countries: tuple[CountryPlan, ...]
    refusals: tuple[Refusal, ...]

    @property
    def empty(self) -> bool:
        """Nothing would be done."""
        return all(each.action is Action.NONE for each in self.countries)

    @property
    def refused(self) -> bool:
        return bool(self.refusals)
