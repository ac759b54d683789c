"""The nouns of a load test: what is to be sent, what came of it, and how both are kept on disk.

A run's folder holds everything that its verdict and report are made of::

    plan.json        the scenario as it was run, its seed, the targets without their keys, the machine
    requests.jsonl   one Record a line, in the order in which they ended
    samples.jsonl    one Sample a line: the machine's CPU, the load generator's lag, the runtime's metrics
    clock.json       time zero, by the monotonic clock and by the time of day
    events.jsonl     one Event a line: phases, faults, interruptions
    verdict.json     what loadtests.slo makes of it, and junit.xml beside it
    report.html      what loadtests.report makes of it

All times are seconds since the run began, by the load generator's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import orjson

PLAN = "plan.json"
REQUESTS = "requests.jsonl"
SAMPLES = "samples.jsonl"
EVENTS = "events.jsonl"
CLOCK = "clock.json"
VERDICT = "verdict.json"
JUNIT = "junit.xml"
REPORT = "report.html"

OURS = "domicile"
"""The side of a run that is under test; the other, where there is one, is what it is compared with."""


class Kind(StrEnum):
    """What a user of the service does. The classes are in :mod:`loadtests.users`."""

    CHAT = "chat"
    CHAT_PLAIN = "chat-plain"
    """Without streaming: first token and end fall together, so only the end counts."""
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    CONVERSATION = "conversation"
    """Several turns; each repeats what was said before and waits for the answer to the last."""
    AGENT = "agent"
    """Tool-calling loop whose requests share 95% of their prompt."""
    DOCUMENT = "document"
    STRUCTURED = "structured"
    FOREIGN = "foreign"
    """A key of one country at another's address: to be refused, at once and always."""


class Outcome(StrEnum):
    """How a request ended. Exactly one of these for every request that was sent."""

    FINISHED = "finished"
    REFUSED = "refused"
    """The service said no, properly: a status of 4xx, or 503 with a code. Not a failure, and no goodput either."""
    FAILED = "failed"
    """500s without a reason, a broken connection, an error frame, an answer that makes no sense, no answer in time."""
    ABORTED = "aborted"
    """The load test itself left, because the scenario said so or because the run ended."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, decided before it is sent."""

    serial: int
    """Unique within the run; also the seed of everything that is drawn for this request."""
    at: float
    """When it is to be sent. In a closed loop, and for later turns of a session, when it was."""
    phase: str
    side: str
    country: str
    organisation: str
    kind: Kind
    prompt_tokens: int
    output_tokens: int
    session: int = 0
    """Requests of one session share their beginning, and come one after the other."""
    turn: int = 0
    shared_tokens: int = 0
    """How much of the prompt is shared with every request of the same ``prefix``."""
    prefix: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One request and what came of it."""

    serial: int
    phase: str
    side: str
    country: str
    organisation: str
    service_class: str
    kind: Kind
    intended: float
    """When it was to be sent: what latencies count from, so that a late generator makes nothing look fast."""
    sent: float
    """When its last byte was handed to the kernel."""
    first: float | None
    """When the first token came; ``None`` where none did. Equal to ``ended`` without streaming."""
    ended: float
    outcome: Outcome
    status: int
    """HTTP status, 0 where there was none."""
    code: str
    """The error's code, or what else went wrong in a word; empty for a finished request."""
    retry_after_s: float | None
    prompt_tokens: int
    """As the service counted them, 0 where it did not say."""
    cached_tokens: int
    output_tokens: int
    finish_reason: str
    gaps: tuple[tuple[float, int], ...]
    """After the first token: seconds since the arrival before, and the tokens that came with it.

    Several events in one packet, or several tokens in one event, are one arrival of several tokens.
    """
    terminals: int
    """How often it ended: ``[DONE]``, an error frame, a refusal, a whole body, a lost connection. Always once."""
    said_country: str
    """The ``x-domicile-country`` of the answer, empty where there was none."""
    request_id: str
    asked_tokens: int = 0
    """The longest answer that was asked for; 0 where that was left to the service."""
    first_tokens: int = 0
    """The tokens that came with the first arrival, which ``gaps`` leaves out; 0 where nobody counted."""
    events: int = 0
    """Events of a stream that carried text, as they came; each holds at least one token. 0 where nobody counted.

    ``first_tokens`` and ``gaps`` may be ``output_tokens`` spread over them, so only this is evidence of its own.
    """
    text_digest: str = ""
    """BLAKE2b (16 bytes, hexadecimal) of the answer's whole text, so that the answers of two runs can be compared."""

    @property
    def first_token_s(self) -> float | None:
        """TTFT, from the intended time."""
        return None if self.first is None else self.first - self.intended

    @property
    def end_to_end_s(self) -> float:
        return self.ended - self.intended

    @property
    def lag_s(self) -> float:
        """By how much the generator was late."""
        return self.sent - self.intended

    @property
    def inter_token_s(self) -> float | None:
        """The mean time between tokens (TPOT); ``None`` where there were not two."""
        tokens = sum(count for _, count in self.gaps)
        return sum(gap for gap, _ in self.gaps) / tokens if tokens else None

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        """Raises :class:`ValueError` for a line that is no record, as the last one of a killed run may be."""
        raw = orjson.loads(line)
        try:
            raw["kind"], raw["outcome"] = Kind(raw["kind"]), Outcome(raw["outcome"])
            raw["gaps"] = tuple((gap, count) for gap, count in raw["gaps"])
            return cls(**raw)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a record: {error}") from error


@dataclass(frozen=True, slots=True)
class Sample:
    """Some figures at one moment. ``source`` is ``machine``, ``generator``, or ``replica:<cc>:<n>``."""

    at: float
    source: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, to be drawn into the plots: a phase, a fault, an interruption."""

    at: float
    kind: str
    what: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder, read."""

    folder: Path
    plan: Mapping[str, Any]
    records: tuple[Record, ...]
    samples: tuple[Sample, ...]
    events: tuple[Event, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises :class:`NotARun` where there is no plan. A last line that was cut short is left out."""
        try:
            plan = orjson.loads((folder / PLAN).read_bytes())
        except (OSError, ValueError) as error:
            raise NotARun(f"{folder} is not the folder of a run: {error}") from error
        return cls(
            folder,
            plan,
            tuple(_lines(folder / REQUESTS, Record.from_json)),
            tuple(_lines(folder / SAMPLES, lambda line: Sample(**orjson.loads(line)))),
            tuple(_lines(folder / EVENTS, lambda line: Event(**orjson.loads(line)))),
        )


class NotARun(ValueError):
    """A folder that holds no run."""


def _lines(path: Path, read: Any) -> Iterator[Any]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                yield read(line)
            except (ValueError, TypeError):
                if line.endswith(b"\n"):
                    raise
