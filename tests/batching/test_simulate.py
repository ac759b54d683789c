"""The simulator: nothing is lost or doubled, nothing crosses a border, and it shows what it is asked to show."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batching.jobs import Reason
from serving.batching.simulate import simulate
from serving.batching.simulation.engine import Engine
from serving.batching.simulation.judge import Result
from serving.batching.simulation.requests import UNAVAILABLE, Ending
from serving.batching.simulation.scenario import Scenario
from serving.batching.simulation.shipped import load_scenario
from tests.batching.simulated import STEP_TIME, ran, scenario, traffic
from tests.house import SHIPPED

ENDINGS = {*Ending, *Reason, UNAVAILABLE}


def document(result: Result) -> str:
    return json.dumps(asdict(result))


streams = st.builds(
    traffic,
    organisations=st.sampled_from(["acme", "patient", "large"]),
    prompt=st.integers(1, 600),
    output=st.integers(1, 60),
    process=st.sampled_from(["poisson", "constant", "gamma", "diurnal"]),
    rate=st.floats(0.5, 15),
) | st.builds(
    traffic,
    prompt=st.integers(1, 300),
    output=st.integers(1, 60),
    users=st.integers(1, 12),
    think_s=st.floats(0, 1),
)
faults = st.fixed_dictionaries(
    {"action": st.sampled_from(["die", "stall"]), "at_s": st.floats(0, 4), "for_s": st.floats(0.1, 3)}
)
scenarios = st.builds(
    scenario,
    seed=st.integers(0, 1000),
    duration_s=st.just(3.0),
    scheduler=st.sampled_from(["fair", "vllm"]),
    lost=st.sampled_from(["again", "fail"]),
    model=st.sampled_from(["exact", "learned"]),
    step_time=st.floats(0, 0.3).map(lambda noise: {**STEP_TIME, "noise": noise, "between_s": 0.002}),
    engine=st.builds(dict, max_num_seqs=st.integers(1, 8), max_num_batched_tokens=st.sampled_from([16, 256])),
    countries=st.integers(1, 3).map(
        lambda replicas: [{"code": "ee", "replicas": replicas, "slo": {"first_token_s": 1.0, "request_s": 8.0}}]
    ),
    organisations=st.just(
        [{"id": "acme", "count": 2}, {"id": "patient", "plan": "batch"}, {"id": "large", "plan": "startup"}]
    ),
    traffic=st.lists(streams, min_size=1, max_size=3),
    faults=st.lists(faults, max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(scenarios)
def test_every_request_ends_once_with_all_its_tokens_or_with_a_reason(described: Scenario) -> None:
    country = ran(described)
    assert set(country.endings) == set(country.requests)
    for request, endings in country.endings.items():
        assert len(endings) == 1
        assert request.ending in ENDINGS
        assert request.ended is not None
        assert request.arrived <= request.ended
        if request.ending == Ending.SERVED:
            assert request.answered == request.length.output
            assert request.prefilled >= request.length.prompt
            assert request.first_token is not None
            assert request.arrived < request.first_token <= request.ended
        elif request.ending != Ending.FAILED and not request.lost:
            # What was turned away before it began has cost nothing.
            assert request.prefilled == 0 or request.ending == Ending.EXPIRED
    assert all(request.expired or request.lost for request in country.idled_beside)
    assert 0 <= country.busy_s <= country.alive_s + 1e-9


@settings(max_examples=25, deadline=None)
@given(scenarios)
def test_what_is_reported_adds_up_and_is_the_same_again(described: Scenario) -> None:
    result = simulate(described)
    assert document(result) == document(simulate(described))
    (country,) = result.countries
    for parts in (country.classes, country.organisations):
        assert sum(part.offered for part in parts.values()) == country.total.offered
        assert sum(part.kept for part in parts.values()) == country.total.kept
    for figures in (country.total, *country.classes.values(), *country.organisations.values()):
        ended = figures.served + sum(figures.refused.values()) + figures.expired + figures.failed
        assert ended == figures.offered
        assert figures.kept <= figures.served


def test_another_seed_is_another_run() -> None:
    described = scenario(traffic=[traffic(rate=5.0)])
    assert document(simulate(described)) != document(simulate(described.model_copy(update={"seed": 2})))


@settings(max_examples=20, deadline=None)
@given(scenarios)
def test_a_country_is_the_same_whoever_else_there_is(described: Scenario) -> None:
    (alone,) = simulate(described).countries
    crowd = [*described.model_dump()["countries"], {"code": "kr"}, {"code": "sk", "replicas": 0}]
    together = simulate(Scenario.model_validate({**described.model_dump(), "countries": crowd}))
    assert together.countries[0] == alone


def test_nobody_serves_for_a_country_that_is_down() -> None:
    described = scenario(countries=[{"code": "ee", "replicas": 0}, {"code": "kr", "replicas": 8}])
    down, up = simulate(described).countries
    assert down.total.refused == {UNAVAILABLE: down.total.offered}
    assert down.total.offered > 0
    assert up.total.goodput == 1.0


@pytest.mark.parametrize("scheduler", ["fair", "vllm"])
def test_a_light_load_is_served_within_the_promise(scheduler: str) -> None:
    (country,) = simulate(scenario(scheduler=scheduler, duration_s=60.0, traffic=[traffic(rate=1.0)])).countries
    assert country.total.offered > 30
    assert country.total.goodput == 1.0
    assert country.fairness is None  # nobody had to wait, so there is nothing to be fair about


@pytest.mark.parametrize("scheduler", ["fair", "vllm"])
@pytest.mark.parametrize("seed", range(4))
def test_stretches_of_decoding_take_as_long_as_their_steps(
    scheduler: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = scenario(scheduler=scheduler, seed=seed, traffic=[traffic(rate=6.0), traffic(rate=0.5, prompt=900)])
    stretched = ran(described).requests
    monkeypatch.setattr(Engine, "longest_stretch", 1)
    stepped = ran(described).requests
    assert [one.ending for one in stretched] == [one.ending for one in stepped]
    for one, same in zip(stretched, stepped, strict=True):
        assert one.ended == pytest.approx(same.ended, abs=1e-6)
        assert one.first_token == pytest.approx(same.first_token, abs=1e-6)


def test_one_request_takes_what_its_steps_take() -> None:
    described = scenario(duration_s=1.0, traffic=[traffic(prompt=100, output=11, process="constant", rate=1.0)])
    described = Scenario.model_validate({**described.model_dump(), "organisations": [{"id": "acme"}]})
    (request,) = ran(described).requests
    assert request.first_token is not None
    assert request.first_token - request.arrived == pytest.approx(0.02 + 100 * 1e-3)
    # Ten further tokens, the first beside 100 tokens of context, the last beside 109.
    assert request.inter_token_s == pytest.approx(0.02 + 2e-3 + 104.5 * 1e-6)


def test_the_way_there_and_back_counts_towards_the_first_token() -> None:
    near, far = (simulate(scenario(path_s=path_s)).countries[0].total for path_s in (0.0, 1.95))
    assert (near.first_token_s.p50 or 0) + 1.95 == pytest.approx(far.first_token_s.p50)
    assert near.inter_token_s == far.inter_token_s
    assert (near.goodput, far.goodput) == (1.0, 0.0)


def test_a_capped_stock_engine_refuses_who_would_be_one_too_many() -> None:
    work = [traffic(users=30)]
    size = {"max_num_queued_reqs": 6}
    (country,) = simulate(scenario(scheduler="vllm", engine=size, traffic=work)).countries
    assert country.total.refused.keys() == {Reason.OVERLOADED}
    # No step has more than six streams, so each token comes as soon as six allow.
    assert (country.total.inter_token_s.p95 or 1) < 0.02 + 6 * 2e-3 + 6 * 50 * 1e-3
    assert country.total.served > 50


def test_in_overload_refusing_early_keeps_more_promises() -> None:
    ours, stock = (shipped("overload", scheduler=scheduler, duration_s=60.0) for scheduler in ("fair", "vllm"))
    assert (ours.total.goodput or 0) > 0.4
    assert (ours.total.goodput or 0) > 4 * (stock.total.goodput or 0)
    assert stock.total.served == stock.total.offered


def test_quiet_organisations_do_not_notice_a_flood() -> None:
    ours, stock = (shipped("noisy-neighbour", scheduler=scheduler) for scheduler in ("fair", "vllm"))
    quiet = [name for name in ours.organisations if name.startswith("quiet")]
    assert len(quiet) == 3
    assert all((ours.organisations[name].goodput or 0) >= 0.95 for name in quiet)
    assert all((stock.organisations[name].goodput or 0) < 0.5 for name in quiet)


def test_backlogged_organisations_share_by_their_plans() -> None:
    described = scenario(
        duration_s=60.0,
        organisations=[{"id": "large", "plan": "startup"}, {"id": "small", "plan": "free"}],
        traffic=[traffic("large", rate=10.0), traffic("small", rate=10.0)],
    )
    (country,) = simulate(described).countries
    large, small = (country.organisations[name].answer_tokens_per_s for name in ("large", "small"))
    assert large / small == pytest.approx(4, rel=0.2)
    assert (country.fairness or 0) > 0.98


def test_the_learned_model_serves_as_well_as_the_exact_one() -> None:
    exact, learned = (shipped("overload", model=model, duration_s=60.0) for model in ("exact", "learned"))
    assert learned.total.goodput == pytest.approx(exact.total.goodput, abs=0.1)


def shipped(name: str, **changes: Any) -> Any:
    described = load_scenario(name, SHIPPED).model_copy(update=changes)
    (country,) = simulate(described).countries
    return country
