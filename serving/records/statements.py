"""What the audit log signs of itself: its head, its checkpoints, and what was removed as old enough."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Self

from serving.records.errors import Check, Rejected
from serving.records.jwks import PublicKeys
from serving.records.jws import opened, require_signed_in_time, seal
from serving.records.record import GENESIS
from serving.records.signing import Signer


@dataclass(frozen=True, slots=True)
class Statement:
    """Record ``seq`` of the country's log has the hash ``hash``, and so has all before it its own."""

    typ: ClassVar[str]

    country: str
    seq: int
    hash: str
    time: int
    """Milliseconds since the epoch."""

    def seal(self, signer: Signer) -> str:
        return seal(signer, self.typ, asdict(self))

    @classmethod
    def open(cls, token: str, keys: PublicKeys, country: str) -> Self:
        """Raises :class:`Rejected`, also for a statement of another country."""
        statement = opened(token, keys, cls.typ)
        members = {field.name: str if field.type == "str" else int for field in fields(cls)}
        if {name: type(value) for name, value in statement.payload.items()} != members:
            raise Rejected(Check.CONTENT, "it has other members than it should")
        said = cls(**statement.payload)  # type: ignore[arg-type] # the line above compared the types
        if said.country != country:
            raise Rejected(Check.CONTENT, "it is of another country")
        require_signed_in_time(statement.key, said.time / 1000)
        return said


@dataclass(frozen=True, slots=True)
class Checkpoint(Statement):
    """In the log itself, right after the record it names."""

    typ = "domicile-audit-checkpoint+jws"


@dataclass(frozen=True, slots=True)
class Removal(Statement):
    """Records up to ``seq`` were removed. The log begins after them."""

    typ = "domicile-audit-removal+jws"


@dataclass(frozen=True, slots=True)
class Head(Statement):
    """Beside the log: where it ends. Whoever writes begins here; whoever verifies finds a tail that was cut off."""

    typ = "domicile-audit-head+jws"

    first: int
    """The first record of the last segment."""
    size: int
    """Bytes of the last segment."""
    since: int
    """When the last segment was begun, in milliseconds since the epoch; 0 where there is none."""
    checkpoint: int
    """The record of the last checkpoint, or 0."""
    checkpointed: int
    """When that was, in milliseconds since the epoch."""

    @classmethod
    def of_nothing(cls, country: str, now: int) -> Self:
        """The head of a log before its first record."""
        return cls(country, 0, GENESIS, now, first=1, size=0, since=0, checkpoint=0, checkpointed=now)
