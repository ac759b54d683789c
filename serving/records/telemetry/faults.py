"""What went wrong, in words of a closed list, where it was met before anybody made a :class:`Reason` of it."""

from __future__ import annotations

from serving.batching.jobs import Reason as TurnedAway
from serving.engine.turnaway import OVER_SHARE, OVERLOADED
from serving.errors import Reason

LOST = "lost"
"""The other process cannot be reached, or the connection to it broke."""
LATE = "late"
"""It did not answer in time."""
RULES = ("authenticate", "grant", "http", "internal", "overload", "r2", "r3", "r5", "r10", "share", "validate")
"""What a request is refused by, as the audit log says it; the residency rules by their number."""
ALL = tuple(sorted({*(reason.key for reason in Reason), *(reason.value for reason in TurnedAway), LOST, LATE}))


def fault_of(status: int) -> str:
    """What a replica's answer with this status says; empty for a good one."""
    if status < 400:
        return ""
    if status in (OVER_SHARE, OVERLOADED):
        return (TurnedAway.OVER_SHARE if status == OVER_SHARE else TurnedAway.OVERLOADED).value
    return (Reason.ENGINE_REFUSED if status < 500 else Reason.INTERNAL_ERROR).key
