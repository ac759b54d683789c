"""One stream's requests in one country, in its phase's time: not yet with a side, a serial, or a place in the run."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import merge
from itertools import accumulate
from pathlib import Path

from loadtests.planning.arrivals import renewals, replayed, times, zipf
from loadtests.planning.published import MOONCAKE_HITS, SERVEGEN_SKEW
from loadtests.record import Kind
from loadtests.scenario import Lengths, Stream
from loadtests.traces import TraceRow, clients, fitted, lengths, read_trace

SESSIONS = frozenset({Kind.CONVERSATION, Kind.AGENT})
"""What comes in several turns, of which only the first is drawn: the others wait for answers."""
AGENT_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Draw:
    """A request, ``at`` seconds after its phase's beginning."""

    at: float
    organisation: str
    prompt_tokens: int
    output_tokens: int
    shared_tokens: int
    session: str = ""
    """The user's own name of it, in a trace."""
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Conditions:
    """Where and how fast a stream flows. Rates are requests a second; a trace without a wanted rate has none."""

    rate: float | None
    until: float | None
    duration_s: float
    time_zone: str


def draws(stream: Stream, organisations: Sequence[str], conditions: Conditions, seed: str) -> Iterator[Draw]:
    """All requests of an open-loop stream, in order of time.

    Times, lengths and organisations are drawn apart: a change of one leaves the others as they were.

    Raises:
        tenants.errors.TenantError: the stream's trace cannot be used.
    """
    if stream.trace_file is not None:
        yield from _traced(stream, stream.trace_file, organisations, conditions, seed)
        return
    share = shared_share(stream)
    sizes = lengths(stream.lengths, random.Random(f"{seed}/lengths"))
    come = _by_client if _has_clients(stream) else _together
    for (at, organisation), (prompt, output) in zip(come(stream, organisations, conditions, seed), sizes, strict=False):
        yield Draw(at, organisation, prompt, output, round(share * prompt))


def _together(
    stream: Stream, organisations: Sequence[str], conditions: Conditions, seed: str
) -> Iterator[tuple[float, str]]:
    """One process for all, each arrival of which is somebody's."""
    due = times(
        stream.arrivals,
        conditions.rate or 0.0,
        conditions.until,
        conditions.duration_s,
        random.Random(f"{seed}/times"),
        time_zone=conditions.time_zone,
    )
    return zip(due, _chosen(organisations, skew_of(stream), seed), strict=False)


def _has_clients(stream: Stream) -> bool:
    """ServeGen's clients are each bursty in their own way, unless the scenario gives one variation for all."""
    given = stream.arrivals
    return stream.lengths.trace == "servegen" and given.process == "gamma" and "cv" not in given.model_fields_set


def _by_client(
    stream: Stream, organisations: Sequence[str], conditions: Conditions, seed: str
) -> Iterator[tuple[float, str]]:
    """A process for each organisation, merged."""
    rng = random.Random(f"{seed}/times")
    mix = clients(len(organisations), rng, skew_of(stream))
    return merge(
        *(
            [
                (at, name)
                for at in renewals(
                    (conditions.rate or 0.0) * client.share, client.cv, conditions.duration_s, rng, client.family
                )
            ]
            for name, client in zip(organisations, mix, strict=True)
        )
    )


def shared_share(stream: Stream) -> float:
    """Which share of its prompts is the same for all of an organisation, where the scenario leaves that open too."""
    if "shared" in stream.lengths.model_fields_set:
        return stream.lengths.shared
    if stream.kind is Kind.AGENT:
        return AGENT_SHARE
    return MOONCAKE_HITS if stream.lengths.trace == "mooncake-conversation" else 0.0


def skew_of(stream: Stream) -> float:
    """The Zipf exponent of the organisations' shares: ServeGen's for its lengths, where the scenario gives none."""
    given = "skew" in stream.arrivals.model_fields_set
    return SERVEGEN_SKEW if stream.lengths.trace == "servegen" and not given else stream.arrivals.skew


def _chosen(organisations: Sequence[str], skew: float, seed: str) -> Iterator[str]:
    rng = random.Random(f"{seed}/organisations")
    cumulated = list(accumulate(zipf(len(organisations), skew)))
    while True:
        yield from rng.choices(organisations, cum_weights=cumulated)


def _traced(
    stream: Stream, path: Path, organisations: Sequence[str], conditions: Conditions, seed: str
) -> Iterator[Draw]:
    """A trace's rows. Of a session whose kind waits for answers, the first turn only: the rest is the client's."""
    rows = _read(path, path.stat().st_mtime_ns if path.exists() else 0)
    called = _called(rows, organisations)
    chosen = _chosen(organisations, skew_of(stream), seed)
    spec = stream.lengths if "lengths" in stream.model_fields_set else Lengths(prompt=1, output=1)
    turns: Counter[str] = Counter()
    lap = 0
    for at, index in replayed([row.at for row in rows], conditions.rate, conditions.duration_s):
        row = rows[index]
        lap += index == 0
        session = f"{lap}/{row.session}" if row.session else ""
        turn = turns[session] if session else 0
        turns[session] += 1
        if turn and stream.kind in SESSIONS:
            continue
        prompt, output = fitted(row.prompt_tokens, row.output_tokens, spec)
        shared = shared_share(stream) * prompt if row.shared_tokens is None else row.shared_tokens * spec.prompt_scale
        organisation = called[row.organisation] if row.organisation else next(chosen)
        yield Draw(at, organisation, prompt, output, min(round(shared), prompt), session, turn)


@lru_cache(maxsize=8)
def _read(path: Path, changed_ns: int) -> tuple[TraceRow, ...]:
    """Once for all countries, and again when the file has changed."""
    return read_trace(path)


def _called(rows: Sequence[TraceRow], organisations: Sequence[str]) -> dict[str, str]:
    """The trace's organisations as ours: by name where we have it, else in the order in which they appear."""
    strangers = dict.fromkeys(row.organisation for row in rows if row.organisation not in organisations)
    dealt = {name: organisations[number % len(organisations)] for number, name in enumerate(strangers)}
    return {name: name for name in organisations} | dealt
