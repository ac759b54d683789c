"""The engines that the contract holds, and a door in front of them that says who is asking."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

import tenants
from serving.engine import cores
from serving.engine.arguments import arguments, command_line
from serving.engine.fake import FakeEngine
from serving.engine.models import prepare, weights
from serving.engine.port import ClaimFacts, Engine, claimed
from serving.settings import Settings
from serving.types import ServiceClass
from tenants.registry import load_country
from tests.loopback import listening


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fake_engine() -> AsyncIterator[Engine]:
    engine = FakeEngine(token_s=0.001)
    await engine.start()
    yield engine
    await engine.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vllm_engine() -> AsyncIterator[Engine]:
    """vLLM with the shipped model, as Estonia is shipped. Not imported until asked for: it takes a minute to start."""
    from serving.engine.vllm import VllmEngine

    model = load_country(Path(tenants.__file__).parent / "countries" / "ee").models[0]
    models = Settings.from_environment().models
    prepare(str(model.source.bundled), models, lambda _doing, _done: None)
    own = sorted(os.sched_getaffinity(0))
    engine = VllmEngine(command_line(arguments(model, weights(model.source, models))), cores.environment(own))
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture(scope="module", params=["fake", pytest.param("vllm", marks=pytest.mark.engine)])
def engine(request: pytest.FixtureRequest) -> Engine:
    built: Engine = request.getfixturevalue(f"{request.param}_engine")
    return built


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        listening(door(engine.app)) as base,
        httpx.AsyncClient(base_url=base, timeout=60) as client,
    ):
        yield client


def door(app: ASGIApp) -> ASGIApp:
    """``app`` on behalf of whom the headers ``x-organisation`` and ``x-service-class`` name, or a standard ``acme``."""

    async def vouched(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        organisation = headers.get("x-organisation", "acme")
        claim = ClaimFacts(
            organisation=organisation,
            request_id=headers.get("x-request-id", "unnamed"),
            service_class=ServiceClass(headers.get("x-service-class", ServiceClass.STANDARD)),
            deadline=time.time() + 60,
            cache_salt=organisation.encode().hex(),
        )
        with claimed(claim):
            await app(scope, receive, send)

    return vouched
