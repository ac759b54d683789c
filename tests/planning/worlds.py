"""What a plan is made from: a country that says everything a file can say, and clusters in which countries run."""

from __future__ import annotations

import copy
from typing import Any

from serving.engine.arguments import Device
from serving.placement import Node
from serving.planning.nouns import Applied, Observed, Running
from serving.planning.parts import parts
from tenants.country import Country, Engine
from tests.tenants.test_country import MINIMAL

FULL: dict[str, Any] = {
    **MINIMAL,
    "gateway": {"tls": {"certificate": "/c.pem", "key": "/k.pem"}, "hostnames": ["a.ee"]},
    "slo": {"classes": {"batch": {"first_token_s": 60.0}}},
    "residency": {"networks": ["10.1.0.0/16"]},
    "telemetry": {"collector": {"endpoint": "https://10.1.2.3:4318", "certificate_authority": "/a.pem"}},
    "models": [{"id": "small", "source": {"path": "/m"}, "engine": {"arguments": {"dtype": "float32"}}}],
}
"""A file in which every section is present."""


def country(**changes: object) -> Country:
    return Country.model_validate({**copy.deepcopy(FULL), **changes})


def altered(path: str, value: object) -> Country:
    """The full country with one value of its file changed; ``models[small]`` is its model."""
    document = copy.deepcopy(FULL)
    *parents, last = path.replace("models[small]", "models.0").split(".")
    place: Any = document
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
    place[last] = value
    return Country.model_validate(document)


def on_cpu(_: Engine) -> Device:
    return "cpu"


def on_gpu(_: Engine) -> Device:
    return "gpu"


def made(one: Country) -> Applied:
    """What is written down when the country is applied."""
    return Applied(one.policy_digest, one.model_dump(mode="json"), parts(one, on_cpu))


def up(*countries: Country, **changes: Any) -> Observed:
    """A cluster in which these run just as their files say."""
    facts: dict[str, Any] = {
        "alive": True,
        "nodes": (Node("head", ""), *(Node(f"node-{one.code}", one.code) for one in countries)),
        "applied": {one.code: made(one) for one in countries},
        "running": {one.code: standing(one) for one in countries},
    }
    return Observed(**{**facts, **changes})


def standing(one: Country) -> Running:
    counts = {name: part.replicas for name, part in parts(one, on_cpu).items()}
    return Running("running", "", counts, counts)
