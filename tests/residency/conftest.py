"""Two countries side by side, for as long as a file of tests; and two that stand apart, for the proof suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.house import Land, lands
from tests.proof import netns
from tests.proof.canary import Canary
from tests.proof.cells import Cells, standing_apart
from tests.running import MODEL


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def countries(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Land]]:
    async with lands(tmp_path_factory.mktemp("home"), "ee", "kr") as found:
        yield found


@pytest.fixture(scope="module")
def ee(countries: list[Land]) -> Land:
    return countries[0]


@pytest.fixture(scope="module")
def kr(countries: list[Land]) -> Land:
    return countries[1]


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory, evidence: Path) -> Iterator[Cells]:
    """Estonia and Korea, each a cell of its own in a network namespace of its own, with real Ray and real vLLM."""
    if (why := netns.missing()) is not None:
        pytest.skip(why)
    with standing_apart(tmp_path_factory.mktemp("cells"), evidence, "ee", "kr") as found:
        yield found


@pytest.fixture(scope="session")
def evidence(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where captures go: with the report, if there is going to be one."""
    named: Path | None = request.config.getoption("--proof", default=None)
    return named.resolve() if named is not None else tmp_path_factory.mktemp("evidence")


@pytest.fixture(scope="session")
def canary() -> Canary:
    """The word that the journey's requests carry."""
    return Canary.fresh()


@pytest.fixture(scope="session")
def hello(canary: Canary) -> dict[str, Any]:
    """A short request."""
    messages = [{"role": "user", "content": f"Hello {canary.via('hello')}"}]
    return {"model": MODEL, "messages": messages, "max_tokens": 4, "temperature": 0}


@pytest.fixture(scope="session")
def receipts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where strangers keep the receipts and the public keys that they fetched."""
    return tmp_path_factory.mktemp("receipts")
