"""The listener is tested on both event loops: Ray gives its actors uvloop, a plain program may not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LoopFactories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]

ASYNCIO: LoopFactories = {"asyncio": asyncio.new_event_loop}
BOTH: LoopFactories = {**ASYNCIO, "uvloop": uvloop.new_event_loop}
ON_BOTH = {"test_listener", "test_protocol", "test_framing"}


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> LoopFactories:
    return BOTH if item.path.stem in ON_BOTH else ASYNCIO
