"""No field of a tenant's file is silently ignored: each one is seen by a plan, and replaces what was made from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from pydantic import BaseModel, JsonValue

from serving.planning.nouns import Action, How
from serving.planning.parts import GATEWAY
from serving.planning.plan import plan
from tenants.country import (
    Collector,
    Country,
    Engine,
    Gateway,
    Model,
    Prometheus,
    Promise,
    Residency,
    Safety,
    Slo,
    Source,
    Telemetry,
    Tls,
)
from tests.planning.worlds import altered, country, on_cpu, up

OTHERWISE: dict[str, JsonValue] = {
    "name": "Estland",
    "english_name": "Esthonia",
    "numeric": 234,
    "time_zone": "Europe/Riga",
    "languages": ["ru", "et"],
    "isolation": "cell",
    "gateway.host": "127.0.0.2",
    "gateway.port": 9999,
    "gateway.replicas": 2,
    "gateway.public_url": "https://ee.example",
    "gateway.hostnames": ["b.ee"],
    "gateway.tls.certificate": "/d.pem",
    "gateway.tls.key": "/l.pem",
    "gateway.max_body_bytes": 4096,
    "slo.first_token_s": 3.0,
    "slo.inter_token_s": 0.2,
    "slo.objective": 0.9,
    "slo.classes.batch.first_token_s": 50.0,
    "slo.classes.batch.inter_token_s": 2.0,
    "slo.classes.batch.objective": 0.5,
    "slo.request_s": 300.0,
    "residency.networks": ["10.1.2.0/24"],
    "residency.allow_hub": True,
    "telemetry.collector.endpoint": "https://10.1.2.4:4318",
    "telemetry.collector.certificate_authority": "/b.pem",
    "telemetry.sampling": 0.5,
    "telemetry.threshold": 6,
    "telemetry.prometheus.listen": "node",
    "telemetry.prometheus.port": 30000,
    "models[small].source.path": "/n",
    "models[small].replicas": 2,
    "models[small].engine.device": "cpu",
    "models[small].engine.profile": "throughput",
    "models[small].engine.kv_cache_gib": 2.0,
    "models[small].engine.scheduler": "vllm",
    "models[small].engine.linear": "vllm",
    "models[small].engine.tensor_parallel_size": 2,
    "models[small].engine.pipeline_parallel_size": 2,
    "models[small].engine.arguments.dtype": "bfloat16",
    "models[small].granted": "named",
}
"""Another good value for each value of the full file."""

TOLD_OTHERWISE = {
    # A model by another id is another model, and one by another kind of source names both kinds: tested below.
    "models[small].id",
    "models[small].source.bundled",
    "models[small].source.hub",
    # The folder has the same name, so another code is another country. There is one policy, which is the floor.
    "code",
    "safety.policy",
}
GATEWAY_ALONE = {
    *("name", "english_name", "numeric", "time_zone", "languages"),
    *(path for path in OTHERWISE if path.startswith("gateway.")),
    "models[small].granted",
}


def leaves(value: Mapping[str, object], path: str = "") -> Iterator[str]:
    for key, inner in value.items():
        place = f"{path}.{key}" if path else key
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            for each in inner:
                yield from leaves(each, f"{place}[{each['id']}]")
        elif isinstance(inner, dict):
            yield from leaves(inner, place)
        else:
            yield place


def test_every_value_that_a_file_can_have_is_altered_below() -> None:
    """Red when a field is new: give it another value above, and judge in ``parts`` whether replicas look at it."""
    assert set(leaves(country().model_dump(mode="json"))) == OTHERWISE.keys() | TOLD_OTHERWISE


@pytest.mark.parametrize(
    "model",
    [
        *(Country, Gateway, Tls, Slo, Promise, Residency, Telemetry, Collector, Prometheus, Safety),
        *(Model, Source, Engine),
    ],
)
def test_no_field_hides_from_the_policy(model: type[BaseModel]) -> None:
    assert not [name for name, field in model.model_fields.items() if field.exclude]


@pytest.mark.parametrize("path", OTHERWISE)
def test_each_is_seen_and_replaces_what_was_made_from_it(path: str) -> None:
    before, after = country(), altered(path, OTHERWISE[path])
    (found,) = plan({"ee": after}, ["ee"], up(before), runs_on=on_cpu).countries
    assert found.action is Action.CHANGE
    assert [(change.path, change.after) for change in found.changes] == [(path, OTHERWISE[path])]
    steps = {step.deployment: step.how for step in found.steps}
    assert steps[GATEWAY] is How.ROLL, "answers name the policy, so whoever gives them knows the new one"
    assert ("small" in steps) is (path not in GATEWAY_ALONE)


def test_a_model_of_another_id_or_source_is_seen_too() -> None:
    before = country()
    renamed = country(models=[{"id": "large", "source": {"path": "/m"}}])
    (found,) = plan({"ee": renamed}, ["ee"], up(before), runs_on=on_cpu).countries
    assert {step.deployment: step.how for step in found.steps} == {
        GATEWAY: How.ROLL,
        "large": How.START,
        "small": How.END,
    }
    bundled = altered("models[small].source", {"bundled": "small"})
    (found,) = plan({"ee": bundled}, ["ee"], up(before), runs_on=on_cpu).countries
    assert {change.path for change in found.changes} == {"models[small].source.bundled", "models[small].source.path"}


def test_the_order_of_models_is_seen_since_the_first_is_the_default() -> None:
    models = [{"id": name, "source": {"path": "/m"}} for name in ("a", "b")]
    before, after = country(models=models), country(models=models[::-1])
    (found,) = plan({"ee": after}, ["ee"], up(before), runs_on=on_cpu).countries
    assert [change.after for change in found.changes] == [["b", "a"]]
