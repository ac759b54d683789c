"""Ray Serve is told what a plan goes by: the same version where a plan leaves a deployment alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving import app
from serving.planning.parts import parts
from serving.settings import Settings
from tenants.country import Country
from tests.house import SHIPPED
from tests.planning.worlds import altered, country, on_gpu
from tests.residency.test_actors import deployments

SETTINGS = Settings(home=Path("/nowhere"), countries=SHIPPED)


def versions(one: Country, generation: str = "") -> dict[str, str]:
    found = list(deployments(app.application(one, SETTINGS, {}, generation)))
    return {each.name: each.version for each in found}


def test_a_deployment_s_version_is_what_its_processes_are_made_from() -> None:
    assert versions(country()) == {name: part.digest for name, part in parts(country()).items()}
    assert versions(country()) == versions(country()), "Serve makes one up for a deployment without, and replaces it"


def test_what_only_the_gateway_reads_leaves_the_replicas_version() -> None:
    before, after = versions(country()), versions(altered("gateway.max_body_bytes", 4096))
    assert before["small"] == after["small"]
    assert before["gateway"] != after["gateway"]


def test_another_generation_replaces_everything() -> None:
    before, after = versions(country()), versions(country(), "-2")
    assert not before.items() & after.items()


@pytest.mark.parametrize("replicas", [1, 3])
def test_more_replicas_on_accelerators_are_no_new_version(replicas: int) -> None:
    one = altered("models[small].replicas", replicas)
    assert parts(one, on_gpu)["small"].digest == parts(country(), on_gpu)["small"].digest


def test_who_is_replaced_may_finish_the_longest_answer() -> None:
    one = altered("slo.request_s", 900.0)
    for each in deployments(app.application(one, SETTINGS, {})):
        assert each._deployment_config.graceful_shutdown_timeout_s > one.slo.request_s
