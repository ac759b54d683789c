"""Connections are tested on both event loops: Ray gives its actors uvloop, everything else may not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    asyncio_only: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    return {**asyncio_only, "uvloop": uvloop.new_event_loop} if item.path.stem == "test_upstream" else asyncio_only
