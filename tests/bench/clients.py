"""Whether the load generator sees what another client sees: vLLM's own ``bench serve``, on the same endpoint.

Both send the same number of requests of the same lengths at the same constant rate, in turns. Ours asks for exact
lengths in the same words as vLLM's does, so that the server does the same work for both.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import yaml

from loadtests.record import Record, Run
from tests.bench.country import CODE
from tests.bench.processes import Child
from tests.bench.report import ROOT, CannotMeasure, Number, Report
from tests.bench.up import bring_up, home

ROUNDS = 3
RATE = 1.0
REQUESTS = 30
PROMPT_TOKENS = 60
TOKENS = 48
WITHIN = 0.05
MOST = 0.9
LIMIT_S = 300
_BENCH = (
    "from argparse import ArgumentParser; from vllm.benchmarks.serve import add_cli_args, main; "
    "parser = ArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
)
"""``vllm bench serve``, past vLLM's command: that asks for a distribution called vllm, and the CPU build's is not."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Somebody who answers both."""

    name: str
    base_url: str
    key: str
    model: str
    tokenizer: Path


@dataclass(frozen=True, slots=True)
class Seen:
    """Medians of one client, in seconds."""

    first_token: float
    per_token: float


def measure(options: argparse.Namespace) -> Report:
    rounds = options.rounds or ROUNDS
    numbers: list[Number] = []
    with TemporaryDirectory(prefix="domicile-clients-") as folder, _endpoints() as endpoints:
        for endpoint in endpoints:
            pairs = [_pair(endpoint, Path(folder) / f"{endpoint.name}-{number}", number) for number in range(rounds)]
            numbers += _numbers(endpoint.name, pairs)
    each = f"{REQUESTS} requests of {TOKENS} tokens at {RATE:g}/s"
    about = f"What two clients measure at one endpoint, {each}, {rounds} rounds."
    return Report("clients", about, tuple(numbers))


def _numbers(name: str, pairs: list[tuple[Seen, Seen]]) -> list[Number]:
    first = tuple(abs(ours.first_token / theirs.first_token - 1) for ours, theirs in pairs)
    each = tuple(abs(ours.per_token / theirs.per_token - 1) for ours, theirs in pairs)
    return [
        Number(f"{name}: first token p50, apart by", "of vLLM's", first, WITHIN),
        Number(f"{name}: time per token p50, apart by", "of vLLM's", each, WITHIN),
        Number(f"{name}: first token p50, ours", "ms", tuple(ours.first_token * 1000 for ours, _ in pairs)),
        Number(f"{name}: first token p50, vLLM's", "ms", tuple(theirs.first_token * 1000 for _, theirs in pairs)),
        Number(f"{name}: time per token p50, ours", "ms", tuple(ours.per_token * 1000 for ours, _ in pairs)),
        Number(f"{name}: time per token p50, vLLM's", "ms", tuple(theirs.per_token * 1000 for _, theirs in pairs)),
    ]


@contextmanager
def _endpoints() -> Iterator[list[Endpoint]]:
    """A stub, whose times are known, and a country on the real engine."""
    with home(CODE) as at:
        (up,) = bring_up(at)
        tokenizer = next(path.parent for path in at.settings.models.rglob("tokenizer.json"))
        with _stub() as url:
            yield [
                Endpoint("stub", url, "none", "stub", tokenizer),
                Endpoint("real", up.address, up.key, up.model, tokenizer),
            ]


@contextmanager
def _stub() -> Iterator[str]:
    with Child("loadtests.stub", "--port", "0", "--first-token-ms", "120", "--inter-token-ms", "25") as stub:
        yield f"http://127.0.0.1:{stub.ready['port']}"


def _pair(endpoint: Endpoint, folder: Path, number: int) -> tuple[Seen, Seen]:
    folder.mkdir()
    # Each goes first every other round. Prompts are new each time, so that no cache knows them.
    if number % 2:
        theirs, ours = _theirs(endpoint, folder, number), _ours(endpoint, folder, number)
    else:
        ours, theirs = _ours(endpoint, folder, number), _theirs(endpoint, folder, number)
    return ours, theirs


def _ours(endpoint: Endpoint, folder: Path, number: int) -> Seen:
    scenario, targets, out = folder / "scenario.yaml", folder / "targets.json", folder / "run"
    scenario.write_text(yaml.safe_dump(_scenario(), allow_unicode=True))
    organisation = {"id": "bench", "key": endpoint.key}
    country = {"code": CODE, "base_url": endpoint.base_url, "model": endpoint.model, "organisations": [organisation]}
    sides = [{"name": "domicile", "countries": [{**country, "residency": False}]}]
    targets.touch(mode=0o600)
    targets.write_text(json.dumps({"sides": sides}))
    words = ["run", str(scenario), "--targets", str(targets), "--out", str(out), "--seed", str(number + 1), "--quiet"]
    # 2 is no verdict, which nobody asked for here: what counts is below.
    _run([sys.executable, "-m", "loadtests", *words], {0, 1, 2})
    records = [record for record in Run.read(out).records if record.outcome == "finished"]
    if len(records) != REQUESTS:
        raise CannotMeasure(f"{len(records)} of {REQUESTS} requests of ours were answered")
    return Seen(_median(records, "first_token_s"), _median(records, "inter_token_s"))


def _median(records: list[Record], figure: str) -> float:
    return float(median(getattr(record, figure) for record in records))


def _scenario() -> dict[str, object]:
    arrivals = {"process": "constant", "rate": RATE}
    stream = {"organisations": "bench", "arrivals": arrivals, "lengths": {"prompt": PROMPT_TOKENS, "output": TOKENS}}
    phase = {"name": "steady", "duration_s": REQUESTS / RATE, "traffic": [stream]}
    return {"name": "clients", "title": "As bench serve does", "organisations": [{"id": "bench"}], "phases": [phase]}


def _theirs(endpoint: Endpoint, folder: Path, number: int) -> Seen:
    words = [
        *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions"),
        *("--base-url", endpoint.base_url, "--model", endpoint.model, "--tokenizer", str(endpoint.tokenizer)),
        *("--dataset-name", "random", "--random-input-len", str(PROMPT_TOKENS), "--random-output-len", str(TOKENS)),
        *("--random-range-ratio", "0", "--seed", str(number + 1)),
        *("--num-prompts", str(REQUESTS), "--request-rate", str(RATE), "--burstiness", "1000000"),
        *("--ignore-eos", "--disable-tqdm", "--percentile-metrics", "ttft,tpot", "--num-warmups", "0"),
        *("--save-result", "--result-dir", str(folder), "--result-filename", "theirs.json"),
        *("--extra-body", json.dumps({"min_tokens": TOKENS})),
    ]
    _run([sys.executable, "-c", _BENCH, *words], {0}, OPENAI_API_KEY=endpoint.key)
    told = json.loads((folder / "theirs.json").read_text())
    # Now and then a random prompt has a character in it that a gateway refuses, and rightly.
    if told["completed"] < MOST * REQUESTS:
        raise CannotMeasure(f"{told['completed']} of {REQUESTS} requests of vLLM's were answered")
    return Seen(told["median_ttft_ms"] / 1000, told["median_tpot_ms"] / 1000)


def _run(line: list[str], good: set[int], **environment: str) -> None:
    done = subprocess.run(
        line,
        cwd=ROOT,
        env={**os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if done.returncode not in good:
        raise CannotMeasure(f"{' '.join(line[1:4])}: {done.stdout[-500:]}{done.stderr[-1500:]}")
