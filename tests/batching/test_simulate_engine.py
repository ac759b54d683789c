"""The simulated engine plans its steps as the scheduler in the real one does, and its front as the pacer does."""

from __future__ import annotations

from itertools import count
from random import Random

import pytest

from serving.batching.simulate import simulate
from serving.batching.simulation.fair import FairEngine
from serving.batching.simulation.lengths import Length
from serving.batching.simulation.requests import Customer, Request
from serving.batching.simulation.scenario import EngineSize, StepTiming
from serving.batching.steptime import Coefficients, Step, StepTime
from serving.types import ServiceClass
from tenants.country import Slo
from tests.batching.simulated import STEP_TIME, scenario, traffic

_serial = count()


def request(organisation: str, prompt: int, output: int, kind: ServiceClass = ServiceClass.STANDARD) -> Request:
    customer = Customer(organisation, kind, 1.0, Slo())
    length = Length(prompt, output, output)
    one = Request(str(next(_serial)), customer, customer.account, length, arrived=0.0, deadline=1e9, affinity=0)
    one.enter(first_token_by=1e6, share=1.0)
    return one


class Bench:
    """A fair engine, driven step by step."""

    def __init__(self, step_s: float = 0.1) -> None:
        timing, size = StepTiming.model_validate(STEP_TIME), EngineSize()
        self.engine = FairEngine(timing, size, Random(1), step_s=step_s, learns=False)
        self.engine.longest_stretch = 1
        self.now = 0.0

    def add(self, *them: Request) -> None:
        for one in them:
            self.engine.add(one, self.now)
        if self.engine.idle:
            self.engine.begin(self.now)

    def step(self) -> None:
        self.now = self.engine.ends
        self.engine.finish(self.now)
        self.engine.begin(self.now)

    def until(self, *them: Request) -> list[Request]:
        """Steps until all have their first token. Returns them in the order in which they got it."""
        while any(one.first_token is None for one in them):
            self.step()
        return sorted(them, key=lambda one: one.first_token or 0.0)


def test_whoever_decodes_much_meanwhile_has_its_prompts_come_later() -> None:
    bench = Bench()
    streams = [request("greedy", 10, 400) for _ in range(20)]
    bench.add(*streams)
    bench.until(*streams)
    greedy, modest = request("greedy", 600, 5), request("modest", 650, 5)
    bench.add(greedy, modest)
    assert bench.until(greedy, modest) == [modest, greedy]


def test_between_equals_the_shorter_prompt_comes_first() -> None:
    bench = Bench()
    short, long = request("a", 60, 5), request("b", 650, 5)
    bench.add(long, short)
    assert bench.until(long, short) == [short, long]


def test_a_prompt_that_was_begun_is_held_for_one_that_comes_before_it() -> None:
    bench = Bench()
    streams = [request("c", 10, 100) for _ in range(4)]
    bench.add(*streams)
    bench.until(*streams)
    long = request("a", 2000, 5)
    bench.add(long)
    for _ in range(8):
        bench.step()
    assert 0 < long.prefilled < 2000
    before = long.prefilled
    newcomer = request("b", 10, 5)
    bench.add(newcomer)
    bench.step()  # what was under way, with a chunk of the long one
    begun = long.prefilled
    bench.step()
    assert newcomer.first_token == bench.now
    assert before < begun == long.prefilled


def test_beside_streams_a_step_keeps_their_promise_and_alone_it_takes_the_whole_budget() -> None:
    bench = Bench()
    bench.add(request("a", 3000, 5))
    bench.step()
    assert bench.engine.last.prefill_tokens == 2048
    bench = Bench()
    bench.add(request("a", 10, 200))
    bench.step()
    bench.add(request("a", 3000, 5))
    bench.step()
    began = bench.now
    bench.step()
    assert bench.now - began < 2 * Slo().inter_token_s
    assert 30 < bench.engine.last.prefill_tokens < 250


def test_batch_work_alone_runs_in_larger_steps() -> None:
    batch = {"id": "patient", "plan": "batch"}
    work = traffic("patient", users=100, prompt=20, output=100)
    between = []
    for others in ([], [traffic("acme", users=1, prompt=5, output=300)]):
        described = scenario(duration_s=40.0, organisations=[batch, {"id": "acme"}], traffic=[work, *others])
        (country,) = simulate(described).countries
        between.append(country.organisations["patient"].inter_token_s.p50 or 0.0)
    alone, beside = between
    assert alone > Slo().inter_token_s > beside


def test_prompts_of_those_who_can_wait_are_prefilled_together() -> None:
    """One by one each would pay for a step's fixed cost, and everybody who decodes would with it."""
    together = []
    for kind in (ServiceClass.STANDARD, ServiceClass.BATCH):
        bench = Bench(step_s=0.5)
        stream = request("a", 10, 400, kind)
        bench.add(stream)
        bench.until(stream)
        bench.add(*(request("a", 40, 5, kind) for _ in range(4)))
        bench.step()
        bench.step()
        together.append(bench.engine.last.prefill_tokens // 40)
    assert together == [1, 4]


def test_what_passes_between_two_steps_is_not_taken_for_part_of_them() -> None:
    timing = StepTiming.model_validate({**STEP_TIME, "between_s": 0.05})
    engine = FairEngine(timing, EngineSize(), Random(1), step_s=0.1, learns=True)
    engine.add(request("a", 20, 400), 0.0)
    engine.begin(0.0)
    while not engine.idle:
        now = engine.ends
        engine.finish(now)
        engine.begin(now)
    step = Step(0, 1, 200)
    assert engine.model.predict(step) == pytest.approx(StepTime.of(Coefficients(**STEP_TIME)).predict(step), rel=0.05)
