from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.placement import Node
from serving.planning.describe import document
from serving.planning.drift import strays
from serving.planning.nouns import Action, Drift, How, Observed, Plan, Refusal, Running
from serving.planning.parts import GATEWAY, parts
from serving.planning.plan import plan, steps_between
from tenants.country import Country
from tenants.registry import load_country
from tests.house import SHIPPED
from tests.planning.test_every_field import OTHERWISE
from tests.planning.worlds import altered, country, made, on_cpu, on_gpu, standing, up

CODES = sorted(path.parent.name for path in SHIPPED.glob("*/tenant.yaml"))
SHIPPED_COUNTRIES = {code: load_country(SHIPPED / code) for code in CODES}
EE, KR = SHIPPED_COUNTRIES["ee"], SHIPPED_COUNTRIES["kr"]


def planned(observed: Observed, *files: Country, codes: list[str] | None = None) -> Plan:
    by_code = {one.code: one for one in files}
    return plan(by_code, codes or sorted({*by_code, *observed.applied}), observed, runs_on=on_cpu)


@given(st.sets(st.sampled_from(CODES), min_size=1))
def test_a_plan_of_what_was_just_applied_is_empty(codes: set[str]) -> None:
    countries = [SHIPPED_COUNTRIES[code] for code in codes]
    found = planned(up(*countries), *countries)
    assert found.empty
    assert not found.refused
    assert not any(one.changes or one.steps or one.drift for one in found.countries)


@given(st.permutations(CODES), st.sets(st.sampled_from(CODES)), st.sampled_from(sorted(OTHERWISE)))
def test_a_plan_is_the_same_for_the_same_files_in_whatever_order(
    order: list[str], running: set[str], path: str
) -> None:
    files = {**{code: SHIPPED_COUNTRIES[code] for code in order}, "ee": altered(path, OTHERWISE[path])}
    observed = up(*(SHIPPED_COUNTRIES[code] for code in sorted(running)))
    refusals = [Refusal(code, "audit", "R10", "because", "do not") for code in order]
    one = plan(files, CODES, observed, refusals, on_cpu)
    other = plan(dict(sorted(files.items())), CODES, observed, refusals[::-1], on_cpu)
    assert document(one) == document(other)


def test_what_is_not_up_is_added_and_what_has_no_file_is_removed() -> None:
    found = planned(up(KR), EE)
    assert [(one.country, one.action) for one in found.countries] == [("ee", Action.ADD), ("kr", Action.REMOVE)]
    assert {step.how for step in found.countries[0].steps} == {How.START}
    assert {step.how for step in found.countries[1].steps} == {How.END}
    assert found.countries[1].name == KR.english_name


def test_a_country_that_nobody_named_and_that_does_not_run_is_left_alone() -> None:
    assert plan({"ee": EE, "kr": KR}, ["ee"], up(EE), runs_on=on_cpu).empty


def test_a_file_that_cannot_be_read_is_never_taken_for_one_that_is_gone() -> None:
    wrong = Refusal("ee", "slo", "", "is wrong", "")
    found = plan({}, ["ee"], up(EE), [wrong], on_cpu)
    assert found.countries == ()
    assert found.refusals == (wrong,)


def test_more_replicas_where_nothing_else_differs_leave_the_others_alone() -> None:
    before, after = country(), altered("models[small].replicas", 3)
    steps = steps_between(parts(before, on_gpu), parts(after, on_gpu))
    assert {step.deployment: (step.how, step.before, step.after) for step in steps}["small"] == (How.SCALE, 1, 3)
    on_cores = steps_between(parts(before, on_cpu), parts(after, on_cpu))
    assert {step.deployment: step.how for step in on_cores}["small"] is How.ROLL, "they divide the cores anew"


def test_the_only_replica_on_an_accelerator_cannot_be_replaced_without_a_pause() -> None:
    before, after = country(), altered("slo.first_token_s", 3.0)
    steps = {step.deployment: step.how for step in steps_between(parts(before, on_gpu), parts(after, on_gpu))}
    assert steps == {GATEWAY: How.ROLL, "small": How.PAUSE}
    found = document(
        Plan(
            (
                replace(
                    planned(up(before), after).countries[0],
                    steps=steps_between(parts(before, on_gpu), parts(after, on_gpu)),
                ),
            ),
            (),
        )
    )
    countries = found["countries"]
    assert isinstance(countries, list)
    assert [step["service"] for step in countries[0]["steps"]] == ["goes on", "pauses"]
    assert {step["streams"] for step in countries[0]["steps"]} == {"kept"}


def told(found: Plan) -> list[str]:
    return [each.kind for one in found.countries for each in one.drift]


@pytest.mark.parametrize(
    ("running", "kinds", "action"),
    [
        (Running("absent"), ["application"], Action.REPAIR),
        (Running("failed", "no memory", {}), ["application", "replicas", "replicas"], Action.REPAIR),
        (replace(standing(EE), phase="unhealthy"), ["application"], Action.NONE),
        (replace(standing(EE), replicas={GATEWAY: 1, EE.models[0].id: 0}), ["replicas"], Action.NONE),
        (replace(standing(EE), replicas={GATEWAY: 1, EE.models[0].id: 2}), ["replicas"], Action.NONE),
        (replace(standing(EE), replicas={**standing(EE).replicas, "old": 1}), ["replicas"], Action.NONE),
        (replace(standing(EE), processes={GATEWAY: 1}), ["processes"], Action.NONE),
        (replace(standing(EE), processes=None), [], Action.NONE),
    ],
)
def test_drift_is_told_and_what_does_not_heal_by_itself_is_repaired(
    running: Running, kinds: list[str], action: Action
) -> None:
    found = planned(up(EE, running={"ee": running}), EE)
    assert told(found) == kinds
    assert found.countries[0].action is action


def test_a_node_that_is_gone_or_wrongly_labelled_is_told() -> None:
    found = planned(up(EE, nodes=(Node("head", ""), Node("n1", "kr"))), EE)
    assert told(found) == ["node"]
    assert found.countries[0].action is Action.REPAIR
    assert list(strays(up(EE, nodes=(Node("n1", "kr"),)))) == [
        Drift("label", "node n1 is labelled kr, which was not made to run")
    ]


def test_an_application_that_nobody_here_made_is_told() -> None:
    (found,) = strays(up(EE, running={"ee": standing(EE), "kr": standing(KR)}))
    assert found.kind == "application"
    assert "kr" in found.what


def test_an_edited_file_is_told() -> None:
    assert told(planned(up(country()), altered("name", "Estland"))) == ["edited"]


def test_where_nobody_knows_what_it_was_made_from_all_of_it_is_made_anew() -> None:
    (found,) = planned(up(EE, applied={"ee": None}), EE).countries
    assert found.action is Action.CHANGE
    assert {step.how for step in found.steps} == {How.ROLL}


def test_a_cluster_that_does_not_answer_is_no_reason_to_start_everything_again() -> None:
    silent = Observed(alive=True, answers=False, applied={"ee": made(EE)}, running={"ee": Running("unknown")})
    found = planned(silent, EE)
    assert found.empty
    assert told(found) == ["unknown"]


CELL = EE.model_copy(update={"isolation": "cell"})


@pytest.mark.parametrize(
    ("observed", "files", "codes", "refused"),
    [
        (up(CELL), [CELL], ["ee"], []),
        (Observed(alive=False), [CELL], ["ee"], []),
        (up(CELL), [CELL, KR], ["kr"], ["kr"]),
        (up(KR), [CELL, KR], ["ee"], ["ee"]),
        (Observed(alive=False), [CELL, KR], ["ee", "kr"], ["ee", "kr"]),
        (up(EE, KR), [CELL, KR], ["ee"], ["ee"]),
        (up(CELL, nodes=(Node("n", "ee"), Node("m", "kr"))), [CELL], ["ee"], ["ee"]),
        (up(CELL, KR), [CELL], ["ee", "kr"], []),
    ],
    ids=["alone", "first", "a newcomer", "beside others", "both", "an edit", "a foreign label", "the other leaves"],
)
def test_r2_a_cell_has_a_cluster_of_its_own(
    observed: Observed, files: list[Country], codes: list[str], refused: list[str]
) -> None:
    found = planned(observed, *files, codes=codes)
    assert [each.country for each in found.refusals] == refused
    assert {each.rule for each in found.refusals} <= {"R2"}
