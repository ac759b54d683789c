"""What a simulation is made of: when requests come, how long they are, and which scenarios are refused."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import mean, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serving.batching.simulation import country
from serving.batching.simulation.arrivals import shares, times
from serving.batching.simulation.lengths import TRACES, Length, quantile, sampler
from serving.batching.simulation.scenario import Arrivals, Lengths, Scenario
from serving.batching.simulation.shipped import load_scenario, shipped
from serving.batching.simulation.traffic import Traffic
from tenants.errors import TenantError
from tests.batching.simulated import STEP_TIME, scenario, traffic
from tests.house import SHIPPED

RECORDED = {"at_s": 0.5, "prompt": 40, "output": 7}
SOURCE = Path(__file__).parents[2] / "serving"


def drawn(rate: float = 10.0, duration_s: float = 1000.0, utc_offset_h: float = 0.0, **fields: Any) -> list[float]:
    return list(times(Arrivals(rate=rate, **fields), rate, duration_s, utc_offset_h, Random(1)))


@pytest.mark.parametrize(
    ("fields", "cv"),
    [({"process": "constant"}, 0.0), ({"process": "poisson"}, 1.0), ({"process": "gamma", "cv": 3.0}, 3.0)],
)
def test_arrivals_have_the_rate_and_the_variation_they_were_given(fields: dict[str, Any], cv: float) -> None:
    found = drawn(**fields)
    gaps = [after - before for before, after in pairwise(found)]
    assert len(found) == pytest.approx(10_000, rel=0.1)
    assert stdev(gaps) / mean(gaps) == pytest.approx(cv, abs=0.15)


def test_a_day_is_busiest_at_eight_in_the_evening_where_it_is() -> None:
    found = drawn(process="diurnal", peak=3.0, utc_offset_h=9.0, duration_s=2400.0)
    by_hour = [sum(hour * 100 <= at < (hour + 1) * 100 for at in found) for hour in range(24)]
    assert by_hour[10] + by_hour[11] == max(by_hour[hour] + by_hour[(hour + 1) % 24] for hour in range(24))
    assert max(by_hour) == pytest.approx(3 * 1000, rel=0.1)
    assert len(found) == pytest.approx(24_000, rel=0.05)


@given(st.integers(0, 100), st.floats(0, 50), st.floats(0.1, 60))
def test_arrivals_keep_to_their_time(seed: int, begins: float, lasts: float) -> None:
    arrivals = Arrivals(rate=5.0, begins_s=begins, ends_s=begins + lasts)
    found = list(times(arrivals, 5.0, 60.0, 0.0, Random(seed)))
    assert found == sorted(found)
    assert all(begins <= at < min(60.0, begins + lasts) for at in found)


@given(st.integers(1, 200), st.floats(0, 3))
def test_shares_are_a_whole_and_fall(count: int, skew: float) -> None:
    found = shares(count, skew)
    assert sum(found) == pytest.approx(1)
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(("name", "prompt", "output"), [("azure-conversation", 1155, 211), ("azure-code", 2048, 28)])
def test_a_trace_has_its_published_means(name: str, prompt: int, output: int) -> None:
    places = [(place + 0.5) / 20_000 for place in range(20_000)]
    assert mean(quantile(TRACES[name].prompt, share) for share in places) == pytest.approx(prompt, rel=0.02)
    assert mean(quantile(TRACES[name].output, share) for share in places) == pytest.approx(output, rel=0.03)


@given(st.sampled_from(sorted(TRACES)), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_rise_from_the_least_to_the_most(name: str, one: float, other: float) -> None:
    known = TRACES[name].prompt
    low, high = sorted((one, other))
    assert known[0][1] <= quantile(known, low) <= quantile(known, high) * (1 + 1e-12)
    assert quantile(known, 0.5) == pytest.approx(known[3][1])


@given(st.integers(0, 1000), st.floats(0.001, 2), st.sampled_from(["exactly", "limit"]))
def test_lengths_are_whole_and_within_their_limits(seed: int, scale: float, asked: str) -> None:
    described = Lengths.model_validate(
        {"trace": "azure-code", "prompt_scale": scale, "output_scale": scale, "prompt_limit": 900, "asked": asked}
    )
    draw = sampler(described, Random(seed))
    for length in (draw() for _ in range(20)):
        assert 1 <= length.prompt <= 900
        assert 1 <= length.output <= length.asked <= 512
        assert asked == "limit" or length.asked == length.output


def test_what_is_shipped_can_be_played_and_says_what_it_shows() -> None:
    assert set(shipped()) >= {"overload", "noisy-neighbour", "ten-countries"}
    for name in shipped():
        described = load_scenario(name, SHIPPED)
        assert described.name == name
        assert len(described.about) > 50
        assert all(site.slo and site.utc_offset_h is not None for site in described.countries)


def test_a_country_s_own_promises_and_clock_fill_what_is_left_out() -> None:
    by_code = {site.code: site for site in load_scenario("ten-countries", SHIPPED).countries}
    assert len(by_code) == 10
    assert (by_code["in"].utc_offset_h, by_code["ar"].utc_offset_h) == (5.5, -3.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"speed": 1}, "speed"),
        ({"traffic": [traffic("acne", rate=1.0)]}, "'acme'"),
        ({"traffic": [{**traffic(rate=1.0), "countries": ["kr"]}]}, "'kr'"),
        ({"traffic": [traffic(rate=1.0, users=3)]}, "exactly one of rate and users"),
        ({"traffic": [traffic()]}, "exactly one of rate and users"),
        ({"traffic": [traffic(rate=float("inf"))]}, "finite"),
        ({"traffic": [{"organisations": "acme"}]}, "exactly one of arrivals and recorded"),
        ({"traffic": [{**traffic(rate=1.0), "recorded": [RECORDED]}]}, "exactly one of arrivals and recorded"),
        ({"traffic": [{"organisations": "acme", "recorded": []}]}, "exactly one of arrivals and recorded"),
        (
            {"traffic": [{"organisations": "acme", "recorded": [RECORDED], "lengths": {"trace": "azure-code"}}]},
            "lengths",
        ),
        (
            {"traffic": [{"organisations": "acme", "recorded": [{**RECORDED, "output": 0}]}]},
            "greater than or equal to 1",
        ),
        ({"countries": [{"code": "ee"}, {"code": "ee"}]}, "twice"),
        ({"organisations": [{"id": "acme-1"}, {"id": "acme", "count": 2}]}, "same name"),
        ({"faults": [{"action": "die", "at_s": 1.0, "for_s": 1.0, "replica": 1}]}, "replica 1"),
        ({"faults": [{"action": "die", "at_s": 1.0, "for_s": 1.0, "country": "kr"}]}, "'kr'"),
        ({"step_time": {**STEP_TIME, "fixed_s": -1.0}}, "greater than or equal to 0"),
        ({"step_time": {"fixed_s": 0.0, "prefill_token_s": 1.0, "decode_stream_s": 0.0}}, "no time"),
        ({"engine": {"max_num_seqs": 64, "max_num_batched_tokens": 32}}, "every stream gets a token"),
    ],
)
def test_what_cannot_be_played_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        scenario(**changes)


def test_recorded_requests_come_when_and_as_long_as_they_were() -> None:
    recorded = [{"at_s": 3.0, "prompt": 30, "output": 3}, RECORDED, {"at_s": 10.0, "prompt": 9, "output": 9}]
    played = scenario(traffic=[{"organisations": "acme", "recorded": recorded}, traffic(rate=1.0)], duration_s=10.0)
    came = Traffic(played, played.countries[0]).requests
    assert [one.arrived for one in came] == sorted(one.arrived for one in came)
    found = [(one.arrived, one.customer.organisation, one.length) for one in came if one.length.prompt != 50]
    assert found == [(0.5, "acme-1", Length(40, 7, asked=7)), (3.0, "acme-2", Length(30, 3, asked=3))]
    assert len(came) > len(found)
    assert Scenario.model_validate(played.model_dump()) == played


def test_a_file_s_mistakes_are_all_told(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nduration: 5\nstep_time: {fixed_s: 1}\n")
    with pytest.raises(TenantError) as caught:
        load_scenario(str(file), SHIPPED)
    told = str(caught.value)
    assert "did you mean 'duration_s'" in told
    assert "step_time.prefill_token_s: is required" in told
    with pytest.raises(TenantError, match="did you mean 'overload'"):
        load_scenario("overlod", SHIPPED)


def test_as_many_replicas_are_asked_as_the_gateway_asks() -> None:
    relay = constants(SOURCE / "steps/relay.py")
    assert (relay["MAX_ATTEMPTS"], relay["MAX_LOST"]) == (country.ATTEMPTS, country.MOST_LOST)


def constants(path: Path) -> dict[str, Any]:
    found = {}
    for line in ast.parse(path.read_text()).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            try:
                found[line.targets[0].id] = ast.literal_eval(line.value)
            except ValueError:
                continue
    return found
