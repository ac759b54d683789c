"""R7: shared memory that a prompt passes through has no name that would outlive its processes."""

from __future__ import annotations

from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from serving.engine.queues import unname


def test_r7_memory_that_is_mapped_goes_on_without_its_name() -> None:
    memory = SharedMemory(create=True, size=4096)
    assert memory.buf is not None
    named = Path("/dev/shm") / memory.name.lstrip("/")
    assert named.exists()
    assert unname() >= 1
    assert not named.exists()
    memory.buf[:6] = b"prompt"
    assert bytes(memory.buf[:6]) == b"prompt"
    assert unname() == 0
    memory.close()
