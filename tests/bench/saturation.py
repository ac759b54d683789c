"""As many tokens as there are in it: closed loops of 16 and 32 clients, greedy and sampled, against tuned stock vLLM.

Both start fast and run eagerly, and then both compile. They are asked the same at the same lengths, one after the other
and each first every other round; ours through its gateway, with everything that belongs to it. Whoever is asked answers
greedily and sampled in turns, an answer of every client at a time: a machine whose neighbours come and go within a few
seconds is then the same for both.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import uvloop

from serving.engine.arguments import BATCH_PIECE_TOKENS
from serving.engine.models import weights
from tenants.registry import Registry
from tests.bench.client import drive, post
from tests.bench.country import CODE
from tests.bench.processes import stopped
from tests.bench.report import CannotMeasure, Number, Report
from tests.bench.stock import EAGER, stock, tree
from tests.bench.up import Home, bring_up, home

ROUNDS = 8
TOKENS = 64
REST_S = 2.0
"""Before a load, so that what was stopped for the one before has caught up with its clocks."""
LIMIT_S = 300.0
SAMPLING = {"greedy": {"temperature": 0.0}, "sampled": {"temperature": 0.8, "top_p": 0.9}}
OWN_TARGET = 0.95
GREEDY_TARGET = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """How both start, and what is asked for then."""

    name: str
    profile: str
    """Ours, in ``tenant.yaml``."""
    flags: tuple[str, ...]
    """Stock's."""
    streams: tuple[int, ...]
    sampled_target: float
    """Sampled tokens over stock's."""


STARTS = (Start("eager", "fast-start", EAGER, (16, 32), 1.7), Start("compiled", "throughput", (), (16,), 2.2))


@dataclass(frozen=True, slots=True)
class Side:
    """Somebody who answers."""

    name: str
    port: int
    model: str
    turns: int
    """How often it answers either way in a round: who is also compared with itself needs many (decision 48)."""
    key: str = "none"
    others: Callable[[], Sequence[psutil.Process]] = tuple
    """Processes that have no part in it, and are stopped while it is asked."""

    def tokens_a_s(self, streams: int, number: int) -> dict[str, float]:
        """Output tokens a second, by sampling."""
        seconds = dict.fromkeys(SAMPLING, 0.0)
        with stopped(self.others()):
            time.sleep(REST_S)
            for turn in range(self.turns):
                # Each follows itself as often as the other: greedy, sampled, sampled, greedy.
                for sampling in tuple(SAMPLING)[:: -1 if (number + turn) % 2 else 1]:
                    seconds[sampling] += self._answers_s(streams, sampling, f"{number}.{turn}")
        return {sampling: self.turns * streams * TOKENS / of for sampling, of in seconds.items()}

    def _answers_s(self, streams: int, sampling: str, name: str) -> float:
        """Seconds until each client has its answer."""
        left = iter(range(streams))

        def request() -> bytes | None:
            index = next(left, None)
            if index is None:
                return None
            # Neither fewer nor more tokens, whatever the model would rather say; and words that no cache knows.
            lengths = {"max_tokens": TOKENS, "min_tokens": TOKENS, "ignore_eos": True}
            words = f"Story {name}.{streams}.{sampling}.{index}: tell me about a city by the sea."
            messages = [{"role": "user", "content": words}]
            fields = {"model": self.model, "messages": messages, "stream": True, **lengths, **SAMPLING[sampling]}
            return post(fields, f"authorization: Bearer {self.key}")

        tally = uvloop.run(drive(self.port, streams, request, LIMIT_S))
        if tally.wrong or tally.requests != streams:
            raise CannotMeasure(f"{self.name}: {tally.wrong} of {tally.requests} answers were wrong")
        return tally.seconds


def measure(options: argparse.Namespace) -> Report:
    rounds = options.rounds or ROUNDS
    numbers: list[Number] = []
    for start in STARTS:
        with home(CODE) as at:
            at.engine(profile=start.profile)
            with both(at, *start.flags) as sides:
                numbers += _numbers(start, _figures(sides, start.streams, rounds))
    return Report(
        "saturation",
        f"Output tokens/s of {TOKENS}-token answers at saturation, {rounds} rounds, against tuned stock vLLM.",
        tuple(numbers),
    )


def _figures(sides: tuple[Side, Side], loops: tuple[int, ...], rounds: int) -> dict[tuple[str, int, str], list[float]]:
    """Tokens a second of each round, by side, streams and sampling."""
    figures: dict[tuple[str, int, str], list[float]] = {}
    for number in range(rounds + 1):
        for streams in loops:
            for side in sides[:: 1 if number % 2 else -1]:
                measured = side.tokens_a_s(streams, number)
                # The first round warms the engines.
                for sampling, tokens_a_s in measured.items() if number else ():
                    figures.setdefault((side.name, streams, sampling), []).append(tokens_a_s)
    return figures


def _numbers(start: Start, figures: dict[tuple[str, int, str], list[float]]) -> Iterator[Number]:
    for streams in start.streams:
        ours = {sampling: figures["ours", streams, sampling] for sampling in SAMPLING}
        theirs = {sampling: figures["stock", streams, sampling] for sampling in SAMPLING}
        at = f"{start.name}, {streams} streams"
        own = ratios(ours["sampled"], ours["greedy"])
        yield Number(f"sampled, {at}", "× our greedy", own, OWN_TARGET, "higher")
        sampled = ratios(ours["sampled"], theirs["sampled"])
        yield Number(f"sampled, {at}", "× stock", sampled, start.sampled_target, "higher")
        yield Number(f"greedy, {at}", "× stock", ratios(ours["greedy"], theirs["greedy"]), GREEDY_TARGET, "higher")
        for sampling in SAMPLING:
            yield Number(f"ours, {sampling}, {at}", "tokens/s", tuple(ours[sampling]))
            yield Number(f"stock, {sampling}, {at}", "tokens/s", tuple(theirs[sampling]))


def ratios(one: list[float], other: list[float]) -> tuple[float, ...]:
    """Of the same round each."""
    return tuple(a / b for a, b in zip(one, other, strict=True))


@contextmanager
def both(at: Home, *flags: str) -> Iterator[tuple[Side, Side]]:
    """Ours, asked as an organisation that may wait, and stock vLLM with these flags, streaming in the same pieces.

    Each is stopped while the other is asked.
    """
    (up,) = bring_up(at)
    (country,) = Registry.load(at.countries).select([CODE])
    at.domicile("org", "create", CODE, "bench", "--plan", "batch")
    key = json.loads(at.domicile("key", "create", CODE, "--org", "bench", "--json"))["key"]
    model = Path(weights(country.models[0].source, at.settings.models))
    with stock(model, *flags, "--stream-interval", str(BATCH_PIECE_TOKENS)) as server:
        port = urlsplit(up.address).port or 80
        ours = Side("ours", port, up.model, turns=12, key=key, others=lambda: tree(server.pid))
        yield ours, Side("stock", server.port, str(model), turns=1, others=at.processes)
