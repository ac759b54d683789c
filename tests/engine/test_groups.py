"""Process groups share one thread, and still carry what processes tell each other."""

from __future__ import annotations

import multiprocessing
from contextlib import nullcontext
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

GROUPS = 3
LIMIT_S = 60.0


def _join(store: str, rank: int, size: int, sharing: bool, told: Connection) -> None:
    """Make groups, as vLLM does. Tell how many threads they brought, and what each group's sum came to."""
    import torch
    from torch import distributed

    from serving.engine.groups import sharing_a_device

    with sharing_a_device() if sharing else nullcontext():
        distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
        wait = timedelta(seconds=LIMIT_S)
        groups = [distributed.new_group(list(range(size)), backend="gloo", timeout=wait) for _ in range(GROUPS)]
    threads = [(one / "comm").read_text().strip() for one in Path("/proc/self/task").iterdir()]
    sums = []
    for group in groups:
        own = torch.tensor([1 + rank])
        distributed.all_reduce(own, group=group)
        sums.append(int(own))
    told.send((threads.count("gloo_tcp_loop"), sums))
    distributed.destroy_process_group()


def joined(folder: Path, size: int, *, sharing: bool) -> list[tuple[int, list[int]]]:
    spawn = multiprocessing.get_context("spawn")
    ends = [spawn.Pipe(duplex=False) for _ in range(size)]
    store = str(folder / f"store-{sharing}")
    processes = [
        spawn.Process(target=_join, args=(store, rank, size, sharing, told)) for rank, (_, told) in enumerate(ends)
    ]
    for process in processes:
        process.start()
    try:
        heard = []
        for end, _ in ends:
            assert end.poll(LIMIT_S), "a process said nothing"
            heard.append(end.recv())
        return heard
    finally:
        for process in processes:
            process.join(LIMIT_S)
            process.kill()


def test_a_worker_that_is_alone_has_one_thread_for_its_groups(tmp_path: Path) -> None:
    assert joined(tmp_path, 1, sharing=True) == [(1, [1] * GROUPS)]
    ((threads, _),) = joined(tmp_path, 1, sharing=False)
    assert threads > GROUPS, "torch shares by itself: serving/engine/groups.py has nothing to mend"


def test_workers_of_several_groups_hear_each_other(tmp_path: Path) -> None:
    assert joined(tmp_path, 2, sharing=True) == [(1, [3] * GROUPS)] * 2
