"""The compiled kernel within a process: its scratch, its threads, and what is left of it after a fork."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import pytest
import torch

from kernels import threads as launched
from kernels.nucleus import batches, cpu, reference
from tests.kernels.rows import KINDS, batch, full, same

WANTED = full(4, top_k=300, top_p=0.9, min_p=1e-4)


def expected(kind: str) -> torch.Tensor:
    return reference.apply(batch(kind, 4, 3000), **WANTED)


@pytest.mark.parametrize("poison", [-(2**31), -1, 0x7FC00000, 2**31 - 1], ids=hex)
def test_nothing_is_read_from_scratch_before_it_is_written(poison: int) -> None:
    cpu.apply(batch("real", 4, 3000), **WANTED)
    for kind in KINDS:
        cpu._held.scratch[-1].view(torch.int32)[:] = poison
        assert same(cpu.apply(batch(kind, 4, 3000), **WANTED), expected(kind))


def test_scratch_grows_and_shrinks_with_the_vocabulary() -> None:
    for size in (3000, 100, 5000, 1):
        logits = batch("ties", 4, size)
        assert same(cpu.apply(logits.clone(), **WANTED), reference.apply(logits.clone(), **WANTED))


def test_threads_do_not_meet() -> None:
    cpu.warm()
    kinds = [kind for kind in KINDS for _ in range(8)]
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda kind: cpu.apply(batch(kind, 4, 3000), **WANTED), kinds))
    assert all(same(one, expected(kind)) for one, kind in zip(done, kinds, strict=True))


def _in_a_child(answers: Any) -> None:
    answers.put(cpu.apply(batch("real", 4, 3000), **WANTED).isfinite().sum().item())


def test_a_forked_child_works_on() -> None:
    """OpenMP's threads stay behind, and the library ends a child that asks for them."""
    cpu.warm()
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    child = fork.Process(target=_in_a_child, args=(answers,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answers.get() == expected("real").isfinite().sum().item()


def test_one_thread_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(batches, "in_parallel", None)
    assert same(cpu.apply(batch("real", 4, 3000), **WANTED), expected("real"))


def test_warming_starts_the_threads() -> None:
    cpu.warm()
    if torch.get_num_threads() > 1 and len(os.sched_getaffinity(0)) > 1:
        assert launched._started == numba.config.NUMBA_NUM_THREADS
        assert numba.threading_layer() in ("omp", "workqueue")
