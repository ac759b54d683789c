"""What a decision of the batching core costs with 10,000 jobs of 1,000 organisations waiting.

One process, this one, and its own CPU time, so that a busy machine does not count. Each decision is timed by itself;
what reading the clock costs is taken off.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from random import Random
from statistics import mean, quantiles
from time import thread_time_ns

from serving.batching.jobs import Job, Room, Speed
from serving.batching.policy import Policy
from serving.batching.steptime import Coefficients, Step, StepTime
from serving.types import ServiceClass
from tests.bench.report import Number, Report

ROUNDS = 5
JOBS = 10_000
ORGANISATIONS = 1_000
DECISIONS = 2_000
SLOTS = 256
TARGET_US = 50.0
OBSERVE_TARGET_US = 20.0
SPEED = Speed(prefill_s=1e-5, answer_s=5e-5, slots=SLOTS, step_s=0.01)


class Rig:
    """A policy with a full house, and what is done to it."""

    def __init__(self, seed: int) -> None:
        self._rng = Random(seed)
        self._count = 0
        self.policy = Policy(SPEED)
        for _ in range(JOBS):
            self.policy.offer(self.job(), 0.0)
        self.running: list[Job] = []
        self._fill()

    def job(self) -> Job:
        self._count += 1
        rng = self._rng
        return Job(
            id=str(self._count),
            organisation=f"org{rng.randrange(ORGANISATIONS)}",
            service_class=rng.choice(list(ServiceClass)),
            weight=rng.choice((0.5, 1.0, 4.0)),
            prompt_tokens=rng.randint(10, 4000),
            cached_tokens=rng.choice((0, 0, 512)),
            answer_tokens=rng.randint(10, 600),
            arrived=0.0,
            first_token_by=rng.uniform(1e5, 2e5),
            deadline=1e6,
        )

    def turn(self) -> dict[str, int]:
        """One job comes, one progresses, one ends, one starts: nanoseconds of each."""
        new, some = self.job(), self._rng.choice(self.running)
        ended = self.running.pop(self._rng.randrange(len(self.running)))
        some = self.running[0] if some is ended else some
        tokens = {"prefill_tokens": 64} if self._rng.random() < 0.2 else {"answer_tokens": 1}
        spent = {
            "offer": _ns(lambda: self.policy.offer(new, 0.0)),
            "served": _ns(lambda: self.policy.served(some.id, **tokens)),
            "finished": _ns(lambda: self.policy.finished(ended.id)),
        }
        began = thread_time_ns()
        started = self.policy.next(0.0, Room(1))
        spent["next"] = thread_time_ns() - began
        if started:
            self.running.append(started)
        return spent

    def _fill(self) -> None:
        while len(self.running) < SLOTS and (job := self.policy.next(0.0, Room(1))):
            self.running.append(job)


def measure(options: argparse.Namespace) -> Report:
    clock_ns = min(_ns(lambda: None) for _ in range(1000))
    taken: dict[str, list[list[int]]] = {"offer": [], "next": [], "served": [], "finished": [], "observe": []}
    for seed in range(options.rounds or ROUNDS):
        rig = Rig(seed)
        # A collection belongs to whoever made the garbage, not to the decision that it happens to interrupt.
        gc.collect()
        gc.disable()
        turns = [rig.turn() for _ in range(DECISIONS)]
        gc.enable()
        for name in taken:
            spent = _observe(seed) if name == "observe" else [turn[name] for turn in turns]
            taken[name].append([max(0, each - clock_ns) for each in spent])
    numbers: list[Number] = []
    for name, rounds in taken.items():
        target = OBSERVE_TARGET_US if name == "observe" else TARGET_US
        numbers.append(Number(f"{name}, mean", "µs", tuple(mean(each) / 1000 for each in rounds), target))
        numbers.append(Number(f"{name}, p99", "µs", tuple(quantiles(each, n=100)[-1] / 1000 for each in rounds)))
    return Report(
        "policy",
        f"CPU time of one decision with {JOBS:,} jobs of {ORGANISATIONS:,} organisations waiting and {SLOTS} running; "
        f"observe is the step-time model's.",
        tuple(numbers),
    )


def _observe(seed: int) -> list[int]:
    rng, model, truth = Random(seed), StepTime(), StepTime.of(Coefficients())
    spent = []
    for _ in range(DECISIONS):
        step = Step(rng.choice((0, 64, 512)), rng.randint(1, 64), rng.randint(100, 50_000))
        seconds = truth.predict(step) * rng.uniform(0.9, 1.1)
        began = thread_time_ns()
        model.observe(step, seconds)
        spent.append(thread_time_ns() - began)
    return spent[DECISIONS // 4 :]


def _ns(decide: Callable[[], object]) -> int:
    began = thread_time_ns()
    decide()
    return thread_time_ns() - began
