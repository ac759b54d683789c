"""The composition root: settings and tenants become Ray Serve applications. Only this module knows all rooms.

One application a country. Its gateway and its replicas carry the same hard label selector, and nothing
softens it (R2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig

from serving.engine.arguments import device
from serving.gateway.server import GatewayDeployment
from serving.placement import COUNTRY_LABEL
from serving.planning.nouns import Part
from serving.planning.parts import GATEWAY, parts, spare
from serving.records.journal import CLOSE_S
from serving.replicas.deployment import CpuSlots, ReplicaDeployment
from serving.settings import OFFLINE, ONLINE, SILENCE, Settings
from tenants.country import Country, Model

GATEWAY_CPUS = 0.1
REPLICA_CPUS = 0.1
"""Ray only counts these; what an engine really uses is divided in :mod:`serving.engine.cores`."""

ONE_MORE = 1
"""Per cent of a deployment, rounded up: a roll-out starts one new process before it ends an old one."""

HEALTH_PERIOD_S = 1.0
STATS_PERIOD_S = 1.0

LAST_WORDS_S = CLOSE_S + 5.0
"""What a process that ends has beyond the time in which answers finish: its records are written then."""

OWN_CHILDREN = {"RAY_kill_child_processes_on_worker_exit": "0"}
"""A replica ends its engine's processes itself: Ray would end them first, and what they were answering with them."""


def application_name(country: str) -> str:
    return f"domicile-{country}"


def application(
    country: Country, settings: Settings, addresses: Mapping[str, str], generation: str = ""
) -> serve.Application:
    """The country's Serve application.

    Args:
        addresses: country code to public base URL, of every country that exists.
        generation: another one replaces every process, also where nothing differs.
    """
    made_of = parts(country)
    served = [model for model in country.models if model.replicas > 0]
    total = sum(model.replicas for model in served) or 1
    replicas = {}
    first = 0
    for model in served:
        slots = CpuSlots(first, total)
        replica = _versioned(_replica(country, model), made_of[model.id], generation)
        replicas[model.id] = replica.bind(country, model, settings, slots)
        first += model.replicas
    gateway = _versioned(_gateway(country), made_of[GATEWAY], generation)
    return gateway.bind(country, settings, dict(addresses), replicas)


def _versioned(deployment: serve.Deployment, part: Part, generation: str) -> serve.Deployment:
    """Serve replaces the processes of a deployment whose version differs, and only those.

    Left to itself it makes a version up, so that the smallest edit would start every engine of the country anew. The
    option is Serve's own and not public; Ray is pinned, and a test knows when it goes.
    """
    return deployment.options(version=f"{part.digest}{generation}", _internal=True)


def patience_s(country: Country) -> float:
    """How long a process that is replaced may still answer: as long as any answer may take, so that none is cut."""
    return country.slo.request_s


def _gateway(country: Country) -> serve.Deployment:
    return serve.deployment(GatewayDeployment).options(
        name=GATEWAY,
        num_replicas=country.gateway.replicas,
        max_surge_percent=ONE_MORE,
        ray_actor_options=actor_options(country, num_cpus=GATEWAY_CPUS),
        health_check_period_s=HEALTH_PERIOD_S,
        graceful_shutdown_timeout_s=patience_s(country) + LAST_WORDS_S,
    )


def _replica(country: Country, model: Model) -> serve.Deployment:
    return serve.deployment(ReplicaDeployment).options(
        name=model.id,
        num_replicas=model.replicas,
        max_surge_percent=surge(model),
        health_check_period_s=HEALTH_PERIOD_S,
        graceful_shutdown_timeout_s=patience_s(country) + LAST_WORDS_S,
        request_router_config=RequestRouterConfig(
            request_router_class="serving.replicas.router:CountryRouter",
            request_routing_stats_period_s=STATS_PERIOD_S,
        ),
        **placement(country, model),
    )


def surge(model: Model) -> int:
    """Whether a roll-out starts a new replica beside an old one, as Serve's per cent of all."""
    return ONE_MORE if spare(model) else 0


def placement(country: Country, model: Model) -> dict[str, Any]:
    """Serve options that put a replica, and every worker of it, on the country's nodes.

    A model on one accelerator is one actor. A model on several is a placement group of one bundle an
    accelerator, each bundle with the label: tensor parallelism stays within a node, pipeline stages may not.
    """
    if device(model.engine) == "cpu":
        return {"ray_actor_options": actor_options(country, num_cpus=REPLICA_CPUS)}
    workers = model.engine.tensor_parallel_size * model.engine.pipeline_parallel_size
    if workers == 1:
        return {"ray_actor_options": actor_options(country, num_cpus=REPLICA_CPUS, num_gpus=1)}
    selector = {COUNTRY_LABEL: country.code}
    options = actor_options(country, num_cpus=REPLICA_CPUS)
    # With a placement group the bundles carry the selector, and the actor takes the first bundle.
    del options["label_selector"]
    return {
        "ray_actor_options": options,
        "placement_group_bundles": [{"CPU": 1, "GPU": 1}] * workers,
        "placement_group_bundle_label_selector": [selector] * workers,
        "placement_group_strategy": "STRICT_PACK" if model.engine.pipeline_parallel_size == 1 else "PACK",
    }


def actor_options(country: Country, **resources: float) -> dict[str, Any]:
    """The label selector without a fallback, and the silence, for every actor of a country."""
    hubs = ONLINE if country.residency.allow_hub else OFFLINE
    return {
        **resources,
        "label_selector": {COUNTRY_LABEL: country.code},
        "runtime_env": {"env_vars": {**SILENCE, **OWN_CHILDREN, **hubs}},
    }
