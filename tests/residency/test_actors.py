"""R2 and R8: where Ray may place what serves a country, and what its processes may say abroad."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import app
from serving.placement import COUNTRY_LABEL
from serving.settings import Settings
from tenants.country import Country, Engine, Gateway, Model, Residency, Source
from tenants.registry import load_country
from tests.house import SHIPPED

SETTINGS = Settings(home=Path("/nowhere"), countries=SHIPPED)
CODES = sorted(path.name for path in SHIPPED.iterdir() if (path / "tenant.yaml").exists())
SOURCE = Source(path=Path("/srv/model"))
ENGINES = [
    Engine(device="cpu"),
    Engine(device="gpu"),
    Engine(device="gpu", tensor_parallel_size=4),
    Engine(device="gpu", pipeline_parallel_size=3),
    Engine(device="gpu", tensor_parallel_size=2, pipeline_parallel_size=2),
]
SWITCHES = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}


def country(code: str = "ee", *engines: Engine, **fields: object) -> Country:
    models = tuple(Model(id=f"m{number}", source=SOURCE, engine=engine) for number, engine in enumerate(engines))
    return load_country(SHIPPED / code).model_copy(update={**({"models": models} if models else {}), **fields})


def deployments(application: Any) -> Iterator[Any]:
    """Every deployment of a Serve application."""
    bound = application._bound_deployment
    yield bound
    for argument in (*bound.init_args, *bound.init_kwargs.values()):
        for inner in argument.values() if isinstance(argument, dict) else (argument,):
            if hasattr(inner, "_bound_deployment"):
                yield from deployments(inner)


def names(value: object) -> Iterator[str]:
    """Every key anywhere in nested options."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name)
            yield from names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names(inner)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_r2_every_actor_carries_its_country_s_hard_label(code: str, engine: Engine) -> None:
    place = country(code, engine)
    own: dict[str, Any] = {"ray_actor_options": app.actor_options(place, num_cpus=1)}
    for options in (app.placement(place, place.models[0]), own):
        bundles = options.get("placement_group_bundles")
        if bundles is None:
            assert options["ray_actor_options"]["label_selector"] == {COUNTRY_LABEL: code}
        else:
            assert options["placement_group_bundle_label_selector"] == [{COUNTRY_LABEL: code}] * len(bundles)
        assert not [name for name in names(options) if "fallback" in name or "soft" in name]


@pytest.mark.parametrize("code", CODES)
def test_r2_and_so_does_every_deployment_of_an_application(code: str) -> None:
    place = country(code, *ENGINES, gateway=Gateway(replicas=3))
    found = list(deployments(app.application(place, SETTINGS, {})))
    assert len(found) == 1 + len(ENGINES)
    for deployment in found:
        bundles = deployment._replica_config.placement_group_bundle_label_selector
        own = deployment.ray_actor_options.get("label_selector")
        assert [own] if bundles is None else bundles == [{COUNTRY_LABEL: code}] * len(bundles or [own])
        assert not [name for name in names(deployment.ray_actor_options) if "fallback" in name]
        assert not getattr(deployment._replica_config, "placement_group_fallback_strategy", None)


def test_r2_no_source_softens_it() -> None:
    softened = [
        path
        for path in (Path(app.__file__).parent).rglob("*.py")
        if "fallback_strategy=" in path.read_text() or '"fallback_strategy"' in path.read_text()
    ]
    assert softened == []


def test_r2_reading_the_composition_root_starts_nothing() -> None:
    code = (
        "import serving.app, ray, sys, threading, multiprocessing\n"
        "assert not ray.is_initialized()\n"
        "assert 'vllm' not in sys.modules and 'torch' not in sys.modules\n"
        "assert multiprocessing.active_children() == []\n"
        "print([t.name for t in threading.enumerate()])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['MainThread']"


def environment(place: Country, options: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = options["ray_actor_options"]["runtime_env"]["env_vars"]
    return found


@pytest.mark.parametrize("engine", ENGINES, ids=str)
@pytest.mark.parametrize("code", CODES)
def test_r8_every_actor_is_silent(code: str, engine: Engine) -> None:
    place = country(code, engine)
    for options in (
        app.placement(place, place.models[0]),
        {"ray_actor_options": app.actor_options(place)},
    ):
        said = environment(place, options)
        assert said["VLLM_NO_USAGE_STATS"] == "1"
        assert said["DO_NOT_TRACK"] == "1"
        assert said["RAY_USAGE_STATS_ENABLED"] == "0"
        assert said["HF_HUB_DISABLE_TELEMETRY"] == "1"
        assert {said[name] for name in SWITCHES} == {"1"}


def test_r8_every_deployment_of_an_application_too() -> None:
    for deployment in deployments(app.application(country("ee", *ENGINES), SETTINGS, {})):
        assert SWITCHES | {"DO_NOT_TRACK"} <= deployment.ray_actor_options["runtime_env"]["env_vars"].keys()


def test_r8_a_tenant_that_allows_the_hub_differs_in_the_hub_s_switches_only() -> None:
    closed, opened = country("ee", ENGINES[0]), country("ee", ENGINES[0], residency=Residency(allow_hub=True))
    for each in (lambda place: app.placement(place, place.models[0])["ray_actor_options"], app.actor_options):
        strict, open_ = each(closed), each(opened)
        lost = strict["runtime_env"]["env_vars"].items() - open_["runtime_env"]["env_vars"].items()
        assert {name for name, _ in lost} == SWITCHES
        new = open_["runtime_env"]["env_vars"].items() - strict["runtime_env"]["env_vars"].items()
        # Said, not left out: the node that an actor inherits from is offline.
        assert set(new) == {(name, "0") for name in SWITCHES}
        assert {**strict, "runtime_env": None} == {**open_, "runtime_env": None}
