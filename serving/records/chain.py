"""Follows an audit log from line to line, and says where it is not what was written.

A line that was changed is told by the line after it, which names another hash. That one may be the changed line itself,
so the fault waits for one more line: where that also names another hash, the one between was changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from serving.records.errors import Rejected
from serving.records.folder import segment_name
from serving.records.jwks import PublicKeys
from serving.records.record import GENESIS, Kind, Line, decode, digest
from serving.records.statements import Checkpoint, Removal


class Flaw(StrEnum):
    """What can be wrong with a log."""

    ALTERED = "altered"
    DAMAGED = "damaged"
    MISSING = "missing"
    MISPLACED = "misplaced"
    TRUNCATED = "truncated"
    SIGNATURE = "signature"
    CLOCK = "clock"
    HEAD = "head"


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a segment, from 1; line 0 is before its first, and an empty segment is the folder."""

    segment: str
    line: int
    seq: int | None
    """The record that belongs there."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, where it is, and what was expected there."""

    flaw: Flaw
    place: Place
    expected: str

    def __str__(self) -> str:
        where = f"{self.place.segment}:{self.place.line}" if self.place.line else self.place.segment or "the folder"
        seq = "" if self.place.seq is None else f", record {self.place.seq}"
        return f"{where}{seq}: {self.flaw}: {self.expected}"


class Chain:
    """What is known after each line. ``anchors`` are hashes by record that a signature elsewhere vouches for."""

    def __init__(self, country: str, keys: PublicKeys, anchors: Mapping[int, str]) -> None:
        self.faults: list[Fault] = []
        self.records = 0
        self.first: int | None = None
        """The first record of the first segment."""
        self.time: str | None = None
        self.checkpoints: list[str] = []
        self._country = country
        self._keys = keys
        self._anchors = anchors
        self._segment = ""
        self._next = 1
        self._hash: str | None = GENESIS
        """Of the record before; ``None`` where it cannot be told, and the next link with it."""
        self._before: Place | None = None
        self._suspect: Place | None = None
        """The record before ``_before``, where the link between them is broken and either may be the altered one."""
        self._damaged = False
        self._start: tuple[int, str] | None = None
        self._ends: dict[int, str] = {}
        self._removals: list[Removal] = []

    @property
    def last(self) -> int:
        """The last record that was met, or that a damaged line stands for; 0 before the first."""
        return self._next - 1

    def enter(self, first: int) -> None:
        """The segment that begins with record ``first`` comes next."""
        if self.first is None:
            self.first = self._next = first
            self._hash = GENESIS if first == 1 else None
        elif first > self._next:
            lost = f"records {self._next} to {first - 1}: {segment_name(self._next)}, or the end of this one"
            self._fault(Flaw.MISSING, Place(self._segment, 0, self._next), lost)
            self._go_on(first, None, None)
        elif self._hash is not None:
            self._ends[self.last] = self._hash
        self._segment = segment_name(first)

    def follow(self, raw: bytes, number: int) -> None:
        """Line ``number`` of the segment, its newline included."""
        self.records += 1
        line = decode(raw)
        if line is None:
            self._fault(Flaw.DAMAGED, Place(self._segment, number, self._next), "this is no record")
            self._go_on(self._next + 1, None, None)
            self._damaged = True
            return
        if self._damaged and line.seq == self._next - 1:
            # The damaged line stood for no record: it was put in.
            self._next = line.seq
        self._damaged = False
        place = Place(self._segment, number, line.seq)
        if line.seq == self._next:
            self._in_place(line, raw, place)
        elif line.prev == self._hash:
            self._settle()
            place = Place(self._segment, number, self._next)
            self._fault(Flaw.ALTERED, place, f"it calls itself record {line.seq}")
            self._go_on(self._next + 1, None, place)
        elif line.seq > self._next:
            lost = f"records {self._next} to {line.seq - 1} should stand before it"
            self._fault(Flaw.MISSING, Place(self._segment, number, self._next), lost)
            self._go_on(line.seq, None, None)
            self._in_place(line, raw, place)
        else:
            self._fault(Flaw.MISPLACED, place, f"record {self._next} should stand here")

    def finish(self) -> None:
        """No more lines."""
        self._settle()
        for seq in sorted(self._anchors):
            if seq > self.last:
                lost = f"the log should go on to record {seq}, whose signed hash is {self._anchors[seq]}"
                self._fault(Flaw.TRUNCATED, Place(self._segment, 0, self._next), lost)
        if self._start is not None and not self._start_is_signed(*self._start):
            lost = f"records 1 to {self._start[0]}, or a signed statement of their removal"
            self._fault(Flaw.MISSING, Place("", 0, 1), lost)

    def _in_place(self, line: Line, raw: bytes, place: Place) -> None:
        if self.records == 1 and line.seq > 1:
            self._start = line.seq - 1, line.prev
        hash_: str | None = digest(raw)
        if self._hash is not None and not self._linked(line, place):
            hash_ = None
        if line.kind in _SIGNED and not self._vouched(line, place):
            # Where the link to the line before is broken too, it is this end of it.
            self._suspect = hash_ = None
        if (said := self._anchors.get(line.seq)) is not None and hash_ is not None:
            if said == hash_:
                self._settle()
            else:
                self._suspect = hash_ = None
                self._fault(Flaw.ALTERED, place, f"its hash should be {said}, as is signed elsewhere")
        self._go_on(line.seq + 1, hash_, place)
        self.time = line.time

    def _linked(self, line: Line, place: Place) -> bool:
        """Whether the line may be what was written, judged by the link to the line before it."""
        if line.prev == self._hash:
            self._settle()
            if self.time is not None and line.time < self.time and not line.stepped:
                self._fault(Flaw.CLOCK, place, f"a time from {self.time} on, or the mark of a clock that was set back")
            return True
        if self._before is None:
            self._fault(Flaw.ALTERED, place, f"the hash before it should be {self._hash}")
            return False
        if self._suspect is not None:
            self._suspect = None
            self._altered(self._before)
        else:
            self._suspect = self._before
        return True

    def _vouched(self, line: Line, place: Place) -> bool:
        """Whether what a line states about the log is signed, and so."""
        token = str(line.fields.get("statement"))
        try:
            if line.kind == Kind.REMOVAL:
                self._removals.append(Removal.open(token, self._keys, self._country))
                return True
            said = Checkpoint.open(token, self._keys, self._country)
        except Rejected as error:
            self._fault(Flaw.SIGNATURE, place, f"a {line.kind} signed by the country; {error}")
            return False
        self.checkpoints.append(token)
        if (said.seq, said.hash) != (line.seq - 1, line.prev):
            self._fault(Flaw.SIGNATURE, place, f"record {said.seq} with the hash {said.hash} before it, as is signed")
            return False
        return True

    def _start_is_signed(self, seq: int, hash_: str) -> bool:
        """Whether a removal reaches at least to where the log begins, and to an end that the chain confirms."""
        ends = {**self._ends, seq: hash_}
        return any(said.seq >= seq and ends.get(said.seq) == said.hash for said in self._removals)

    def _go_on(self, following: int, hash_: str | None, before: Place | None) -> None:
        if hash_ is None:
            self._settle()
        self._next, self._hash, self._before = following, hash_, before

    def _settle(self) -> None:
        """The record before is as it was written, or there is no telling: then the one before it is not."""
        if self._suspect is not None:
            suspect, self._suspect = self._suspect, None
            self._altered(suspect)

    def _altered(self, place: Place) -> None:
        self._fault(Flaw.ALTERED, place, "the hash that the record after it names")

    def _fault(self, flaw: Flaw, place: Place, expected: str) -> None:
        self.faults.append(Fault(flaw, place, expected))


_SIGNED = frozenset({Kind.CHECKPOINT.value, Kind.REMOVAL.value})
