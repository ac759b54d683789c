"""What recording costs, and how long it takes to verify a million records.

CPU time, so that a busy machine does not count. A request's whole is every thread's time for its audit record, its
signature and its row, the disk's syncs included; it shrinks with what else is in its batch. There are 20 batches a
second at most, so a request alone is dear only where there are few. The caller's part is ``note``, on the thread that
would run the event loop.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path
from statistics import mean, quantiles
from time import process_time, thread_time_ns

from serving.records.audit_verify import verify
from serving.records.ground import RecordsGround
from serving.records.receipts import Answered, Outcome, new_receipt_id
from serving.types import Usage
from tests.bench.report import CannotMeasure, Number, Report

ROUNDS = 3
BATCHES = {200: 20, 20: 50, 1: 200}
"""How many requests come together, and how often."""
RECORDS = 1_000_000
PACKET = 10_000
TARGET_US = 200.0
VERIFY_TARGET_S = 30.0
DIGEST = "sha256:" + "5c" * 32


def served(number: int) -> Answered:
    return Answered(
        receipt=new_receipt_id(time.time_ns() // 1_000_000),
        request=f"req_{number:032x}",
        organisation=f"organisation-{number % 100}",
        site="a1b2c3d4",
        node="node-1.tallinn.example",
        model="smollm2-135m-instruct",
        model_digest=DIGEST,
        policy_digest=DIGEST,
        outcome=Outcome.COMPLETED,
        usage=Usage(812, 214, 512),
        key="0123456789ab",
        endpoint="chat",
        duration_ms=2345,
    )


def measure(options: argparse.Namespace) -> Report:
    whole: dict[int, list[float]] = {burst: [] for burst in BATCHES}
    means, tails = [], []
    for _ in range(options.rounds or ROUNDS):
        for burst, times in BATCHES.items():
            total_us, noted_us = _record(burst, times)
            whole[burst].append(total_us)
            if burst == max(BATCHES):
                means.append(mean(noted_us))
                tails.append(quantiles(noted_us, n=100)[-1])
    seconds, size_mib = _verify()
    return Report(
        "records",
        f"CPU time to record a request, disks synced batch by batch, and to verify {RECORDS:,} audit records "
        f"({size_mib:,.0f} MiB) on one core.",
        (
            Number("a request in all, 200 a batch", "µs", tuple(whole[200]), TARGET_US),
            Number("a request in all, 20 a batch", "µs", tuple(whole[20])),
            Number("a request in all, alone", "µs", tuple(whole[1])),
            Number("note, mean", "µs", tuple(means)),
            Number("note, p99", "µs", tuple(tails)),
            Number("a million records verified", "s", (seconds,), VERIFY_TARGET_S),
        ),
    )


def _record(burst: int, times: int) -> tuple[float, list[float]]:
    """Microseconds of a request over all threads, and of each ``note`` on its own."""
    with tempfile.TemporaryDirectory() as folder:
        recorder = RecordsGround(Path(folder), "ee").recorder()
        bursts = [[served(begin * burst + number) for number in range(burst)] for begin in range(times)]
        noted_us = []
        gc.collect()
        begun = process_time()
        for requests in bursts:
            for request in requests:
                began = thread_time_ns()
                recorder.note(request)
                noted_us.append((thread_time_ns() - began) / 1000)
            if not recorder.flush(30):
                raise CannotMeasure(f"the recorder does not keep up: {recorder.failure}")
        spent = process_time() - begun
        recorder.close(30)
    return spent / (burst * times) * 1e6, noted_us


def _verify() -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        ground = RecordsGround(Path(folder), "ee")
        log = ground.audit()
        for begin in range(0, RECORDS, PACKET):
            log.append([served(number).record() for number in range(begin, begin + PACKET)])
        log.close()
        size = sum(path.stat().st_size for path in ground.audit_directory.iterdir())
        begun = process_time()
        verdict = verify(ground.audit_directory, ground.keys().public(), "ee")
        seconds = process_time() - begun
    if not verdict.ok or verdict.records < RECORDS:
        raise CannotMeasure(f"the log does not verify: {verdict.faults[:1]}")
    return seconds, size / 2**20
