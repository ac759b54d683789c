"""How many streams one core of this machine can drive before the load generator is what is measured.

``python -m loadtests.ceiling`` runs the locustfile on one core against the stub on another, with more and more
concurrent streams of 20 tokens a second each. "Lag" is how late the generator was: with a request, or with a packet
that may have waited in the kernel while it was busy (:mod:`loadtests.client.meter`). Exit code 1 where
:data:`WANTED` streams are not sustained with a lag p99 of at most :data:`MOST_LAG_S`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import orjson

from loadtests.record import OURS, Outcome, Record, Run

WANTED = 500
MOST_LAG_S = 0.01
TOKENS_PER_S = 20
SUSTAINED = 0.98
"""Of the tokens that the stub would have sent, at least."""
_FILL_S = 4.0
"""Until all streams are under way, at even distances."""
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Found:
    """What a number of streams came to, while all were under way."""

    streams: int
    tokens_per_s: float
    lag_p50_s: float
    lag_p99_s: float
    """The median second's."""
    worst_p99_s: float
    """The worst second's."""
    cpu: float
    """Cores that the generator used."""
    failed: int

    @property
    def sustained(self) -> bool:
        enough = self.tokens_per_s >= SUSTAINED * self.streams * TOKENS_PER_S
        return enough and not self.failed and self.lag_p99_s <= MOST_LAG_S


def measure(streams: int, seconds: float, cores: tuple[int, int]) -> Found:
    """Run so many streams for ``seconds`` of full load, the generator and the stub each on a core of its own."""
    length = int((seconds + _FILL_S) * TOKENS_PER_S)
    with tempfile.TemporaryDirectory() as name, _stub(cores[1]) as port:
        folder = Path(name)
        run = folder / "run"
        run.mkdir()
        _write(folder, port, streams, length)
        command = [sys.executable, "-m", "locust", "-f", str(_ROOT / "loadtests/locustfile.py"), "--headless"]
        command += ["--only-summary", "--scenario", str(folder / "scenario.yaml"), "--run-folder", str(run)]
        command += ["--targets", str(folder / "targets.json")]
        done = subprocess.run([*_on(cores[0]), *command], cwd=_ROOT, capture_output=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr.decode())
        # There is no plan: only records and samples are wanted.
        (run / "plan.json").write_bytes(b"{}")
        return _found(Run.read(run), streams)


def _found(run: Run, streams: int) -> Found:
    finished = [record for record in run.records if record.outcome is Outcome.FINISHED]
    begin = max((record.first or 0.0 for record in finished), default=0.0)
    end = min((record.ended for record in finished), default=0.0)
    full = [sample.values for sample in run.samples if begin + 1 < sample.at <= end] or [{}]
    p99 = [values.get("lag_p99_s", float("inf")) for values in full]
    return Found(
        streams=streams,
        tokens_per_s=sum(_within(record, begin, end) for record in finished) / max(end - begin, 1e-9),
        lag_p50_s=median(values.get("lag_p50_s", float("inf")) for values in full),
        lag_p99_s=median(p99),
        worst_p99_s=max(p99),
        cpu=median(values.get("cpu", 0.0) for values in full),
        failed=streams - len(finished),
    )


def _within(record: Record, begin: float, end: float) -> int:
    """Tokens of a record that came in a stretch of time."""
    at, tokens = record.first or 0.0, 0
    for gap, count in record.gaps:
        at += gap
        tokens += count if begin <= at < end else 0
    return tokens


def _write(folder: Path, port: int, streams: int, length: int) -> None:
    country = {"code": "ee", "base_url": f"http://127.0.0.1:{port}", "model": "stub"}
    targets = folder / "targets.json"
    targets.write_bytes(orjson.dumps({"sides": [{"name": OURS, "countries": [country]}]}))
    targets.chmod(0o600)
    arrivals = {"process": "constant", "rate": streams / _FILL_S}
    lengths = {"prompt": 20, "output": length, "output_limit": length}
    traffic = {"organisations": "acme", "arrivals": arrivals, "lengths": lengths}
    scenario = {
        "name": "ceiling",
        "title": "How many streams one core drives",
        "countries": ["ee"],
        "organisations": [{"id": "acme"}],
        "phases": [{"name": "fill", "duration_s": _FILL_S, "traffic": [traffic]}],
    }
    (folder / "scenario.yaml").write_bytes(orjson.dumps(scenario))  # JSON is YAML


@contextmanager
def _stub(core: int) -> Iterator[int]:
    pace = str(1000 / TOKENS_PER_S)
    command = [sys.executable, "-m", "loadtests.stub", "--first-token-ms", pace, "--inter-token-ms", pace]
    stub = subprocess.Popen([*_on(core), *command], cwd=_ROOT, stdout=subprocess.PIPE)
    try:
        assert stub.stdout is not None  # noqa: S101 - it was asked for
        yield int(json.loads(stub.stdout.readline())["port"])
    finally:
        stub.terminate()
        stub.wait()


def _on(core: int) -> list[str]:
    return ["taskset", "-c", str(core)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.ceiling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("streams", type=int, nargs="*", default=[WANTED], help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=8, help="of full load (default: %(default)s)")
    told = parser.parse_args()
    if shutil.which("taskset") is None or len(os.sched_getaffinity(0)) < 2:
        print("needs taskset and two cores", file=sys.stderr)
        return 2
    first, second, *_ = sorted(os.sched_getaffinity(0))
    print("streams  tokens/s  lag p50  lag p99  worst second  generator CPU  failed")
    kept = True
    for streams in told.streams:
        found = measure(streams, told.seconds, (first, second))
        lags = (found.lag_p50_s, found.lag_p99_s, found.worst_p99_s)
        p50, p99, worst = (f"{lag * 1000:.1f} ms" for lag in lags)
        print(
            f"{streams:7}  {found.tokens_per_s:8.0f}  {p50:>7}  {p99:>7}  {worst:>12}  {found.cpu:12.0%}  "
            f"{found.failed:6}{'' if found.sustained else '  not sustained'}",
            flush=True,
        )
        kept = kept and (found.sustained or streams > WANTED)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
