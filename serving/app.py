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
from serving.replicas.deployment import DRAIN_GRACE_S, CpuSlots, ReplicaDeployment
from serving.settings import OFFLINE, ONLINE, SILENCE, Settings
from tenants.country import Country, Model

GATEWAY = "gateway"
GATEWAY_CPUS = 0.1
REPLICA_CPUS = 0.1
"""Ray only counts these; what an engine really uses is divided in :mod:`serving.engine.cores`."""

ONE_MORE = 1
"""Per cent of a deployment, rounded up: a roll-out starts one new process before it ends an old one."""

HEALTH_PERIOD_S = 1.0
STATS_PERIOD_S = 1.0

OWN_CHILDREN = {"RAY_kill_child_processes_on_worker_exit": "0"}
"""A replica ends its engine's processes itself: Ray would end them first, and what they were answering with them."""


def application_name(country: str) -> str:
    return f"domicile-{country}"


def application(country: Country, settings: Settings, addresses: Mapping[str, str]) -> serve.Application:
    """The country's Serve application.

    Args:
        addresses: country code to public base URL, of every country that exists.
    """
    served = [model for model in country.models if model.replicas > 0]
    total = sum(model.replicas for model in served) or 1
    replicas = {}
    first = 0
    for model in served:
        slots = CpuSlots(first, total)
        replicas[model.id] = _replica(country, model).bind(country, model, settings, slots)
        first += model.replicas
    return _gateway(country).bind(country, settings, dict(addresses), replicas)


def _gateway(country: Country) -> serve.Deployment:
    return serve.deployment(GatewayDeployment).options(
        name=GATEWAY,
        num_replicas=country.gateway.replicas,
        max_surge_percent=ONE_MORE,
        ray_actor_options=actor_options(country, num_cpus=GATEWAY_CPUS),
        health_check_period_s=HEALTH_PERIOD_S,
        graceful_shutdown_timeout_s=DRAIN_GRACE_S,
    )


def _replica(country: Country, model: Model) -> serve.Deployment:
    return serve.deployment(ReplicaDeployment).options(
        name=model.id,
        num_replicas=model.replicas,
        max_surge_percent=surge(model),
        health_check_period_s=HEALTH_PERIOD_S,
        graceful_shutdown_timeout_s=DRAIN_GRACE_S + 5,
        request_router_config=RequestRouterConfig(
            request_router_class="serving.replicas.router:CountryRouter",
            request_routing_stats_period_s=STATS_PERIOD_S,
        ),
        **placement(country, model),
    )


def surge(model: Model) -> int:
    """Whether a roll-out starts a new replica beside an old one, as Serve's per cent of all.

    A model with one replica on CPUs takes memory for two meanwhile, and stays served. Where there are more, the others
    serve, and the new one gets the very cores that the old one left. An accelerator is rarely free to hold two.
    """
    return ONE_MORE if model.replicas == 1 and device(model.engine) == "cpu" else 0


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
