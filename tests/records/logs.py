"""Small logs for tests, and what is done to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from serving.records.audit import AuditLog, Limits
from serving.records.audit_verify import Verdict, verify
from serving.records.receipts import Answered, Outcome, new_receipt_id
from serving.records.record import Kind, Record
from serving.records.signing import KeyFolder
from serving.types import Usage

NOW = 1_770_000_000_000
"""A moment in 2026, in milliseconds since the epoch."""
SMALL = Limits(segment_bytes=4_000, checkpoint_records=7)
DIGEST = "sha256:" + "ab" * 32


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class Home:
    """A country's ground in a test: keys, and logs that share a folder as processes do."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "audit"
        self.keys = KeyFolder(directory / "signing")

    def log(self, limits: Limits = SMALL, clock: Callable[[], int] | None = None) -> AuditLog:
        return AuditLog(self.directory, "ee", self.keys, limits, clock or Clock())

    def verdict(self, known: dict[int, str] | None = None) -> Verdict:
        return verify(self.directory, self.keys.public(), "ee", known)

    def lines(self) -> list[bytes]:
        return b"".join(path.read_bytes() for path in self.segments()).splitlines(keepends=True)

    def segments(self) -> list[Path]:
        return sorted(self.directory.glob("audit-*.jsonl"))


def refusal(number: int = 0) -> Record:
    return Record(Kind.REFUSAL, {"request": f"req_{number}", "rule": "r3", "reason": "incorrect_hostname"})


def answered(number: int = 0, organisation: str = "acme") -> Answered:
    return Answered(
        receipt=new_receipt_id(NOW),
        request=f"req_{number}",
        organisation=organisation,
        site="a1b2c3d4",
        node="node-1",
        model="smollm2-135m-instruct",
        model_digest=DIGEST,
        policy_digest=DIGEST,
        outcome=Outcome.COMPLETED,
        usage=Usage(prompt_tokens=12, completion_tokens=34, cached_tokens=8),
        key="k1",
        endpoint="chat",
        duration_ms=56,
    )
