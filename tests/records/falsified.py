"""A true log as bytes, to be falsified."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from serving.records.audit_verify import Verdict, verify
from serving.records.chain import Fault
from serving.records.jwks import PublicKeys
from tests.records.logs import Home


@dataclass(frozen=True)
class Log:
    """A true log, as bytes: lines by segment, and the head."""

    segments: dict[str, tuple[bytes, ...]]
    head: bytes
    keys: PublicKeys
    home: Home

    @property
    def lines(self) -> list[tuple[str, int]]:
        """Segment and number of every line; its record is its index and one."""
        return [(name, number) for name, lines in self.segments.items() for number in range(1, len(lines) + 1)]

    def line(self, index: int) -> bytes:
        name, number = self.lines[index]
        return self.segments[name][number - 1]

    def changed(self, change: Callable[[dict[str, list[bytes]]], None]) -> dict[str, bytes]:
        copy = {name: list(lines) for name, lines in self.segments.items()}
        change(copy)
        return {name: b"".join(lines) for name, lines in copy.items()}

    def with_line(self, index: int, line: bytes) -> dict[str, bytes]:
        name, number = self.lines[index]
        return self.changed(lambda copy: copy[name].__setitem__(number - 1, line))

    def verdict(self, segments: dict[str, bytes], head: bytes | None = None) -> Verdict:
        with TemporaryDirectory() as folder:
            for name, content in segments.items():
                (Path(folder) / name).write_bytes(content)
            (Path(folder) / "head.jws").write_bytes(self.head if head is None else head)
            return verify(Path(folder), self.keys, "ee")


def first(verdict: Verdict) -> Fault:
    assert not verdict.ok
    return verdict.faults[0]


def at(fault: Fault) -> tuple[str, int]:
    return fault.place.segment, fault.place.line
