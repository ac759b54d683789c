"""A country's deployments, each with a name for what its processes are made from.

Ray Serve takes the name for a deployment's version: where it stays the same no process is replaced. So what a plan says
of a deployment and what Serve does with it come from one place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256

from pydantic import JsonValue

from serving.engine.arguments import Device, device
from serving.planning.nouns import Part
from tenants.country import Country, Engine, Model

GATEWAY = "gateway"

GATEWAY_ONLY = frozenset({"name", "english_name", "numeric", "time_zone", "languages", "gateway", "safety", "models"})
"""What no replica looks at. All else, what is described in future included, replaces replicas when it changes."""

GATEWAY_ONLY_OF_MODELS = frozenset({"replicas", "granted"})

Devices = Callable[[Engine], Device]


def parts(country: Country, runs_on: Devices = device) -> dict[str, Part]:
    """Deployment to its part. Any change of the file changes the gateway's, whose answers name the policy."""
    served = [model for model in country.models if model.replicas > 0]
    total = sum(model.replicas for model in served)
    found = {GATEWAY: Part(country.policy_digest, country.gateway.replicas, spare=True)}
    first = 0
    for model in served:
        # On CPUs replicas divide a node's cores, so all of them are made anew where there are more or fewer.
        slots: list[JsonValue] = [first, total] if runs_on(model.engine) == "cpu" else []
        found[model.id] = Part(_digest(country, model, slots), model.replicas, spare(model, runs_on))
        first += model.replicas
    return found


def spare(model: Model, runs_on: Devices = device) -> bool:
    """Whether a roll-out starts a new replica beside an old one.

    A model with one replica on CPUs takes memory for two meanwhile, and stays served. Where there are more, the others
    serve, and the new one gets the very cores that the old one left. An accelerator is rarely free to hold two.
    """
    return model.replicas == 1 and runs_on(model.engine) == "cpu"


def _digest(country: Country, model: Model, slots: list[JsonValue]) -> str:
    shared = country.model_dump(mode="json", exclude=set(GATEWAY_ONLY))
    own = model.model_dump(mode="json", exclude=set(GATEWAY_ONLY_OF_MODELS))
    return digest({"country": shared, "model": own, "slots": slots})


def digest(value: Mapping[str, JsonValue]) -> str:
    """A name for a value, however its mappings are ordered."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
