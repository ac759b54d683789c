"""A prompt on its way to a replica, and to the next where one is lost."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving.placement import Replica
from serving.types import Caller, Prompt


@dataclass(frozen=True, slots=True)
class Errand:
    """What is carried. Its lists of replicas grow on the way."""

    caller: Caller
    prompt: Prompt
    request_id: str
    ends: float
    """When the whole answer has to be there, by the monotonic clock."""
    tried: dict[str, Replica] = field(default_factory=dict)
    """The replicas that it has been with, by id, in order. Nobody in it is asked again."""
    served: list[Replica] = field(default_factory=list)
    """Those that gave something of the answer, in order."""

    @property
    def at(self) -> Replica | None:
        """Who served it last, or was the last to have it."""
        return self.served[-1] if self.served else next(reversed(self.tried.values()), None)
