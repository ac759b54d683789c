"""Two countries side by side, for as long as a file of tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.house import Land, lands


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
