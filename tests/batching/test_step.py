"""What one engine step does."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from serving.batching.jobs import Account
from serving.batching.step import (
    BEHIND_S,
    GENTLE,
    NEWCOMERS,
    QUICK,
    REST,
    SEVERAL,
    SHORT,
    SHORT_S,
    SPENT_AT_ONCE,
    UNFINISHED,
    WORTH,
    Behind,
    Limits,
    Plan,
    Prefill,
    bearable_s,
    order,
    plan,
)
from serving.batching.steptime import Coefficients, Step, StepTime

LIMITS = Limits(tokens=2048, step_s=0.2, chunk=16, debt=100)
PROMISED_S = 0.1
MODEL = StepTime.of(Coefficients(fixed_s=0.01, prefill_token_s=1e-3, decode_stream_s=1e-3, context_token_s=0))

prefills = st.lists(
    st.builds(
        Prefill,
        id=st.uuids().map(str),
        account=st.sampled_from("abc").map(Account),
        left=st.integers(1, 5000),
        first_token_by=st.floats(0, 100),
        admitted=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda one: one.id,
)
counters = st.fixed_dictionaries({Account(name): st.floats(0, 1e6) for name in "abc"})


def a_plan(
    them: list[Prefill],
    streams: int = 0,
    *,
    company: bool = False,
    crowded: bool = False,
    counters: dict[Account, float] | None = None,
    promised_s: float = PROMISED_S,
    now: float = 0.0,
    model: StepTime = MODEL,
    limits: Limits = LIMITS,
) -> Plan:
    served = counters or {}
    return plan(
        them,
        lambda account: served.get(account, 0.0),
        now=now,
        decode_streams=streams,
        decode_tokens=streams,
        context_tokens=100 * streams,
        promised_s=promised_s,
        company=company,
        crowded=crowded,
        model=model,
        limits=limits,
    )


def prefill(
    id: str, organisation: str, left: int, due: float = 1.0, *, admitted: bool = True, computed: int = 0
) -> Prefill:
    return Prefill(id, Account(organisation), left, due, admitted, computed)


@given(prefills, st.integers(0, 200), st.booleans(), counters)
def test_every_stream_gets_its_token_and_prefill_goes_on(
    them: list[Prefill], streams: int, company: bool, served: dict[Account, float]
) -> None:
    made = a_plan(them, streams, company=company, counters=served)
    assert sorted(made.order) == sorted(one.id for one in them)
    assert streams + LIMITS.chunk <= made.tokens <= LIMITS.tokens
    held = [one for one in them if one.id in made.held]
    assert all(one.admitted for one in held)
    if held:
        first = next(one for one in them if one.id == made.order[0])
        shown = [id for id in made.order if id not in made.held]
        assert first.id in shown, "who comes first is never held back"


def test_nobody_decodes_and_nobody_else_is_about_so_the_whole_budget_is_used() -> None:
    assert a_plan([prefill("long", "a", 5000)]).tokens == LIMITS.tokens


def test_beside_streams_a_step_keeps_their_promise() -> None:
    made = a_plan([prefill("long", "a", 5000)], streams=20)
    chunk = made.tokens - 20
    assert 0.01 + 20e-3 + chunk * 1e-3 <= PROMISED_S < 0.01 + 20e-3 + (chunk + 1) * 1e-3


def test_who_was_promised_nothing_bears_any_step() -> None:
    for tokens, elapsed_s in ((0, 0.0), (0, 5.0), (7, 1e9)):
        assert bearable_s(math.inf, tokens, elapsed_s) == math.inf


def test_a_generous_promise_is_not_used_up_where_that_would_gain_little() -> None:
    made = a_plan([prefill("long", "a", 5000)], streams=2, promised_s=10.0)
    alone_s = 0.01 + 2e-3
    assert made.tokens - 2 == round((WORTH - 1) * alone_s / 1e-3)


def test_what_can_be_done_quickly_is_done_at_once() -> None:
    alone_s = 0.01 + 20e-3
    quickly, gently = (MODEL.chunk(times * alone_s, 20, 2000, at_most=LIMITS.tokens) for times in (QUICK, GENTLE))
    assert gently < quickly
    for left, taken in ((quickly, quickly), (quickly + 1, gently)):
        them = [prefill("next", "a", left, due=1e6), prefill("long", "b", 5000, due=1e6)]
        assert a_plan(them, streams=20, promised_s=1.0).tokens - 20 == taken


def test_a_long_prompt_that_has_time_goes_on_gently() -> None:
    made = a_plan([prefill("long", "a", 5000, due=1e6)], streams=20)
    assert made.tokens - 20 == round((GENTLE - 1) * (0.01 + 20e-3) / 1e-3)


def test_where_more_waits_a_step_finishes_what_it_can_and_adds_a_little_of_the_next() -> None:
    saved = PROMISED_S + SPENT_AT_ONCE * LIMITS.step_s
    short = [prefill(name, name[0], 50, due=1e6) for name in ("a1", "b1", "c1")]
    long = prefill("long", "d", 5000, due=1e7)
    further = MODEL.chunk(UNFINISHED * LIMITS.step_s, 20, 2000, at_most=LIMITS.tokens)
    assert 50 < further < 150
    for them, taken in (([*short, long], 150), ([*short[:1], long], further), ([long], further)):
        made = a_plan(them, streams=20, crowded=True, promised_s=saved)
        assert made.tokens - 20 == taken


def test_the_rest_of_a_long_prompt_makes_no_step_longer() -> None:
    saved = PROMISED_S + SPENT_AT_ONCE * LIMITS.step_s
    further = MODEL.chunk(UNFINISHED * LIMITS.step_s, 20, 2000, at_most=LIMITS.tokens)
    left = 120
    assert further < left
    for computed, taken in ((0, left), (int(left / REST), left), (int(left / REST) + 1, further)):
        them = [prefill("flood", "a", left, due=1e6, computed=computed)]
        assert a_plan(them, streams=20, crowded=True, promised_s=saved).tokens - 20 == taken


def test_what_is_late_takes_whatever_the_streams_bear() -> None:
    saved = PROMISED_S + SPENT_AT_ONCE * LIMITS.step_s
    made = a_plan([prefill("late", "a", 5000, due=0.0)], streams=20, crowded=True, promised_s=saved)
    assert saved - 1e-3 < MODEL.predict(Step(made.tokens - 20, 20, 2000)) <= saved


@given(st.integers(100, 3000), st.floats(0.5, 60), st.integers(1, 30))
def test_a_long_prompt_is_done_in_time_where_the_promises_of_others_allow_it(
    left: int, time_left: float, streams: int
) -> None:
    now, took, first = 5.0, 0.0, left
    alone_s = 0.01 + streams * 1e-3
    while left > 0:
        made = a_plan([prefill("long", "a", left, due=5.0 + time_left)], streams, now=now + took, promised_s=0.2)
        chunk = made.tokens - streams
        step_s = alone_s + min(chunk, left) * 1e-3
        assert step_s <= max(0.2, alone_s + LIMITS.chunk * 1e-3) + 1e-9
        left -= chunk
        took += step_s
    soonest = alone_s + first * 1e-3 / (1 - max(1 / WORTH, alone_s / 0.2))
    assert took <= max(0.9 * time_left, soonest) + 2 * alone_s


def test_where_others_are_about_a_step_ends_soon() -> None:
    made = a_plan([prefill("long", "a", 5000)], company=True)
    assert MODEL.predict(Step(made.tokens, 0, 0)) <= NEWCOMERS * LIMITS.step_s
    assert made.tokens > LIMITS.step_s / MODEL.coefficients.prefill_token_s, "their own promise is the longer one"


def test_beside_somebody_s_long_prompt_a_newcomer_waits_no_longer_than_for_a_short_one_of_its_own() -> None:
    """However long the steps are that the streams bear."""
    patient = Limits(tokens=2048, step_s=10.0, chunk=16, debt=100)
    long = prefill("long", "noisy", 5000, due=1e6)
    several = [prefill(f"short-{one}", f"light-{one}", SHORT, due=1e6) for one in range(SEVERAL + 1)]
    for them, taken in (([long], SHORT), ([*several[:2], long], 2 * SHORT), (several, SEVERAL * SHORT)):
        made = a_plan(them, streams=60, company=True, crowded=True, promised_s=10.0, limits=patient)
        assert abs(made.tokens - 60 - taken) <= 1
    beyond = a_plan([long], streams=60, company=False, crowded=True, promised_s=10.0, limits=patient)
    assert beyond.tokens - 60 > SEVERAL * SHORT, "nobody comes who would wait"


def test_where_tokens_are_quick_a_flood_is_not_served_by_the_crumb() -> None:
    quick = StepTime.of(Coefficients(fixed_s=0.01, prefill_token_s=2e-5, decode_stream_s=1e-5, context_token_s=0))
    made = a_plan([prefill("long", "noisy", 5000, due=1e6)], streams=20, company=True, crowded=True, model=quick)
    assert made.tokens - 20 == int(SHORT_S / 2e-5)


def test_a_newcomer_does_not_stand_behind_somebody_s_long_prompt() -> None:
    flood = prefill("flood", "noisy", 1200, due=1.0)
    quiet = prefill("quiet", "light", 80, due=9.0, admitted=False)
    made = a_plan([flood, quiet], streams=2)
    assert made.order == ("quiet", "flood")
    assert made.held == {"flood"}


def test_whoever_is_passed_over_comes_first_before_long() -> None:
    flood = prefill("flood", "noisy", 1200)
    served = {Account("noisy"): 0.0, Account("light"): 0.0}
    turns = 0
    while order([flood, prefill("next", "light", 80)], lambda account: served[account], LIMITS.debt)[0].id != "flood":
        served[Account("light")] += 80
        turns += 1
    assert turns == 2, "the debt is 100 tokens"


def test_of_one_account_the_one_that_is_due_first_goes_first() -> None:
    them = [prefill("late", "a", 10, due=5.0), prefill("soon", "a", 900, due=1.0)]
    assert [one.id for one in order(them, lambda _: 0.0, 100)] == ["soon", "late"]


def behind_after(*steps: tuple[float, int]) -> bool:
    behind = Behind()
    return [behind.step(now, prefills) for now, prefills in steps][-1]


def test_an_engine_that_always_has_a_prompt_behind_another_is_behind() -> None:
    halves = [(0.5 * BEHIND_S * number, 2) for number in range(4)]
    assert not behind_after(*halves[:2])
    assert behind_after(*halves)


def test_one_long_prompt_alone_makes_no_engine_fall_behind() -> None:
    """It is done in good time, however gently."""
    assert not behind_after(*[(0.5 * BEHIND_S * number, 1) for number in range(40)])


def test_a_step_with_one_prompt_or_none_says_that_it_keeps_up() -> None:
    for few in (0, 1):
        assert not behind_after((0.0, 2), (0.6 * BEHIND_S, few), (0.7 * BEHIND_S, 2), (1.2 * BEHIND_S, 2))


def test_an_engine_that_was_idle_in_between_was_not_behind_all_the_while() -> None:
    """Nobody asks an idle engine for a step, so it cannot say that it has nothing to prefill."""
    assert not behind_after((0.0, 2), (100.0, 2))
