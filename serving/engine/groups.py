"""Process groups of torch's that share one thread.

vLLM makes a dozen groups, also for a worker that is alone. On CPUs they are gloo's, each of which brings a device with
a thread that looks a hundred times a second whether anything came: 1,200 wakes a second of the cores that the engine
computes on, for groups of one, to which nothing ever comes. Groups may share a device, and with it the thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from torch.distributed import distributed_c10d


@contextmanager
def sharing_a_device() -> Iterator[None]:
    """Groups that are made meanwhile are on one device. It lives as long as they do."""
    gloo = distributed_c10d.ProcessGroupGloo
    device = gloo.create_default_device()

    class SharingGroup(gloo):  # type: ignore[misc, valid-type] # a class of C++, chosen when torch was built
        def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
            options = gloo._Options()
            options._devices, options._timeout = [device], timeout
            super().__init__(store, rank, size, options)

    distributed_c10d.ProcessGroupGloo = SharingGroup
    try:
        yield
    finally:
        distributed_c10d.ProcessGroupGloo = gloo
