"""What is left of a real engine's throughput behind the gateway: 16 streams of 64 tokens, with and without it.

The straight way signs its own claims with the country's cell key, so that the replica does the same work for both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import uvloop

from serving.cli.demo import ORGANISATION
from serving.replicas.claim import HEADER, LIFETIME_S, CellKey, Claim
from serving.types import ServiceClass
from tests.bench.client import PATH, Tally, drive, post
from tests.bench.country import CODE
from tests.bench.report import CannotMeasure, Number, Report
from tests.bench.up import bring_up, home, replica_port

STREAMS = 16
TOKENS = 64
REQUESTS = 2 * STREAMS
ROUNDS = 5
LIMIT_S = 300.0
TARGET = 0.97


@dataclass(frozen=True, slots=True)
class Ways:
    """The two ways to one replica."""

    gateway_port: int
    replica_port: int
    key: str
    cell_key: CellKey
    country: str
    model: str


def measure(options: argparse.Namespace) -> Report:
    rounds = options.rounds or ROUNDS
    with _ways(options) as ways:
        serial = count()
        through: list[float] = []
        straight: list[float] = []
        for number in range(rounds + 1):
            # The same prompts for both, new ones each round, and each way goes first every other round.
            prompts = [f"{number}.{index}" for index in range(REQUESTS)]
            pair = [
                (through, ways.gateway_port, _keyed(ways)),
                (straight, ways.replica_port, _claimed(ways, serial)),
            ]
            for figures, port, headers in pair[:: 1 if number % 2 else -1]:
                figures.append(_tokens_a_s(port, ways.model, prompts, headers))
    # The first round warms the engine.
    del through[0], straight[0]
    ratios = tuple(one / other for one, other in zip(through, straight, strict=True))
    return Report(
        "passthrough",
        f"A real model's throughput at {STREAMS} streams of {TOKENS} tokens, {rounds} rounds.",
        (
            Number("throughput through the gateway", "× the replica's", ratios, TARGET, "higher"),
            Number("through the gateway", "tokens/s", tuple(through)),
            Number("straight to the replica", "tokens/s", tuple(straight)),
        ),
    )


@contextmanager
def _ways(options: argparse.Namespace) -> Iterator[Ways]:
    given = (options.gateway, options.key, options.replica_url, options.claim_key)
    if all(given):
        yield _given(options.gateway, options.key, options.replica_url, options.claim_key)
    elif any(given):
        raise CannotMeasure("--gateway, --key, --replica-url and --claim-key go together")
    else:
        with home(CODE) as at:
            (up,) = bring_up(at)
            secret = at.settings.country(CODE) / "cell.key"
            yield _given(up.address, up.key, f"http://127.0.0.1:{replica_port(at)}", secret)


def _given(gateway: str, key: str, replica_url: str, claim_key: Path) -> Ways:
    base = gateway.removesuffix("/").removesuffix("/v1")
    listed = httpx.get(f"{base}/v1/models", headers={"authorization": f"Bearer {key}"})
    if listed.status_code != 200:
        raise CannotMeasure(f"{base} answers {listed.status_code}")
    return Ways(
        gateway_port=_port(base),
        replica_port=_port(replica_url),
        key=key,
        cell_key=CellKey(claim_key.read_bytes()),
        country=key.split("-")[1],
        model=listed.json()["data"][0]["id"],
    )


def _port(url: str) -> int:
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "localhost") or parts.port is None:
        raise CannotMeasure(f"{url} is not plain HTTP on loopback")
    return parts.port


def _tokens_a_s(port: int, model: str, prompts: list[str], headers: Callable[[], str]) -> float:
    left = iter(prompts)

    def request() -> bytes | None:
        prompt = next(left, None)
        return None if prompt is None else post(_body(model, prompt), headers())

    tally: Tally = uvloop.run(drive(port, STREAMS, request, LIMIT_S))
    if tally.wrong or tally.requests != len(prompts):
        raise CannotMeasure(f"{tally.wrong} of {tally.requests} answers were wrong")
    return tally.requests * TOKENS / tally.seconds


def _body(model: str, prompt: str) -> dict[str, object]:
    # Neither fewer nor more tokens, whatever the model would rather say.
    lengths = {"max_tokens": TOKENS, "min_tokens": TOKENS, "ignore_eos": True}
    messages = [{"role": "user", "content": f"Story {prompt}: tell me about a city by the sea."}]
    return {"model": model, "messages": messages, "temperature": 0, "stream": True, **lengths}


def _keyed(ways: Ways) -> Callable[[], str]:
    return lambda: f"authorization: Bearer {ways.key}"


def _claimed(ways: Ways, serial: Iterator[int]) -> Callable[[], str]:
    def header() -> str:
        now = time.time()
        request_id = f"bench-{now:.6f}-{next(serial)}"
        deadline, expiry = now + LIMIT_S, now + LIFETIME_S
        claim = Claim(ways.country, ORGANISATION, request_id, ServiceClass.STANDARD, PATH, deadline, expiry)
        return f"{HEADER}: {ways.cell_key.sign(claim)}"

    return header
