"""The scenarios that are shipped: they can be read, planned and disturbed as they say."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from loadtests import chaos, schedule
from loadtests.record import OURS, Kind
from loadtests.run import scaled
from loadtests.scenario import Arrivals, Scenario, load_scenario, shipped
from loadtests.schema import PATH, render
from loadtests.targets import Targets
from tenants.errors import TenantError

NAMES = sorted(shipped())
CAPACITY = 3.0


def targets_for(scenario: Scenario, *sides: str) -> Targets:
    """Every country with every organisation that the scenario names."""
    organisations = [
        {"id": group.id if group.count == 1 else f"{group.id}-{number}", "key": f"sk-{group.id}-{number}"}
        for group in scenario.organisations
        for number in range(1, group.count + 1)
    ]
    countries = [
        {"code": code, "base_url": f"http://127.0.0.1:{9000 + at}", "model": "m", "organisations": organisations}
        for at, code in enumerate(scenario.countries)
    ]
    return Targets.model_validate({"sides": [{"name": side, "countries": countries} for side in sides or (OURS,)]})


def test_those_that_are_asked_for_are_there() -> None:
    assert set(NAMES) >= {
        "steady",
        "knee",
        "burst",
        "noisy-neighbour",
        "overload",
        "shared-prefix",
        "day",
        "soak",
        "cold-start",
        "rollout",
        "replica-kill",
        "foreign-keys",
        "tour",
    }


@pytest.mark.parametrize("name", NAMES)
def test_an_editor_finds_the_schema_and_the_schema_accepts_it(name: str) -> None:
    text = shipped()[name].read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    assert load_scenario(name).name == name
    jsonschema.validate(yaml.safe_load(text), json.loads(PATH.read_text(encoding="utf-8")))


def test_the_schema_is_fresh() -> None:
    assert PATH.read_text(encoding="utf-8") == render(), "run python -m loadtests.schema"


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_planned_for_its_countries(name: str) -> None:
    scenario = load_scenario(name)
    targets = targets_for(scenario)
    capacity = dict.fromkeys(scenario.countries, CAPACITY)
    planned = schedule.make(scenario, targets, scenario.seed, capacity)
    assert {arrival.country for arrival in planned.arrivals} == set(scenario.countries)
    assert planned.duration_s == pytest.approx(scenario.duration_s)
    for phase in scenario.phases:
        assert any(arrival.phase == phase.name for arrival in planned.arrivals)
    faults = chaos.faults_of(planned, scenario, scenario.seed)
    assert len(faults) == sum(len(phase.faults) + phase.random_faults for phase in scenario.phases)


@pytest.mark.parametrize("name", NAMES)
def test_a_laptop_can_run_it(name: str) -> None:
    """A small model's context is 4,096 tokens, and an answer of some tens of tokens takes it a second."""
    scenario = load_scenario(name)
    capacity = dict.fromkeys(scenario.countries, CAPACITY)
    planned = schedule.make(scenario, targets_for(scenario), scenario.seed, capacity)
    asked = [one for one in planned.arrivals if one.kind is not Kind.FOREIGN]
    assert max(one.prompt_tokens + one.output_tokens for one in asked) < 3000
    assert sum(one.output_tokens for one in asked) / len(asked) < 64
    assert all(one.rate is None or one.rate <= 1 for one in _rates(scenario)), "absolute rates are light ones"
    assert scenario.duration_s <= 300 or name == "soak"


def _rates(scenario: Scenario) -> list[Arrivals]:
    return [stream.arrivals for phase in scenario.phases for stream in phase.traffic if stream.kind is not Kind.FOREIGN]


def test_the_tour_takes_five_minutes_with_everything() -> None:
    tour = load_scenario("tour")
    assert tour.countries == ("ee", "kr")
    assert tour.measures_capacity
    assert 240 <= tour.capacity.duration_s + tour.duration_s <= 300
    assert tour.phases[-1].faults[0].action == "kill"


def test_a_shorter_run_is_the_same_run() -> None:
    whole = load_scenario("replica-kill")
    short = scaled(whole, 0.1)
    assert [one.name for one in short.phases] == [one.name for one in whole.phases]
    assert short.duration_s == pytest.approx(whole.duration_s / 10)
    assert short.phases[0].faults[0].at_s == pytest.approx(2.0)
    assert short.capacity.duration_s == pytest.approx(2.0)
    planned = schedule.make(short, targets_for(short), 1, dict.fromkeys(short.countries, CAPACITY))
    assert chaos.faults_of(planned, short, 1)[0].at == pytest.approx(2.0)


def test_a_shorter_run_can_be_read_back_from_its_folder(tmp_path: Path) -> None:
    for name in NAMES:
        short = scaled(load_scenario(name), 0.5)
        path = tmp_path / f"{name}.yaml"
        path.write_text(short.model_dump_json(exclude_unset=True), encoding="utf-8")
        assert load_scenario(str(path)) == short


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"phaze": []}, "unknown key 'phaze' in the scenario; did you mean 'phases'?"),
        ({"phases": [{"name": "a", "duration_s": 1, "jugded": False}]}, "did you mean 'judged'?"),
        ({"phases": [{"name": "a", "duration_s": 0}]}, "phases[0].duration_s"),
        ({"seed": "1"}, "seed"),
    ],
)
def test_what_is_written_wrongly_is_named(wrong: dict[str, object], complaint: str, tmp_path: Path) -> None:
    right = {"name": "mine", "title": "Mine", "organisations": [{"id": "acme"}]}
    phases = [{"name": "a", "duration_s": 1}]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**right, "phases": phases, **wrong}), encoding="utf-8")
    with pytest.raises(TenantError) as caught:
        load_scenario(str(path))
    assert complaint in str(caught.value)


def test_a_name_that_is_nearly_right_is_corrected() -> None:
    with pytest.raises(TenantError, match="did you mean 'steady'"):
        load_scenario("stedy")
