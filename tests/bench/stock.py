"""vLLM's own server beside us: the same model and start profile, on the same cores, with the same OpenMP."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psutil

from serving.cli.ports import free_port
from serving.engine import cores
from serving.engine.arguments import CPU_BLOCK_TOKENS
from serving.settings import OFFLINE, SILENCE
from tests.bench.country import HOST
from tests.bench.report import CannotMeasure

LIMIT_S = 300.0
POLL_S = 0.1
EAGER = ("--enforce-eager",)
KV_CACHE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Server:
    """One that is healthy."""

    port: int
    pid: int


@contextmanager
def stock(model: Path, *flags: str, tuned: bool = True) -> Iterator[Server]:
    """It, once it is healthy.

    Args:
        flags: more of vLLM's own arguments.
        tuned: give it all cores, and the OpenMP and the blocks that our replicas get; else vLLM's defaults.
    """
    port = free_port()
    line = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    line += ["--kv-cache-memory-bytes", str(KV_CACHE_BYTES), "--dtype", "float32", "--host", HOST, "--port", str(port)]
    line += ["--max-model-len", "4096", "--enable-prompt-tokens-details"]
    line += ["--block-size", str(CPU_BLOCK_TOKENS)] * tuned
    own = cores.environment(sorted(os.sched_getaffinity(0))) if tuned else {}
    server = subprocess.Popen(
        [*line, *flags],
        # Away from this checkout, whose packages it must not find.
        cwd=model,
        env={**os.environ, **SILENCE, **OFFLINE, **own},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # As a country is: not in the session of those who measure.
        start_new_session=True,
    )
    begun = perf_counter()
    try:
        while not _healthy(port):
            if server.poll() is not None or perf_counter() - begun > LIMIT_S:
                raise CannotMeasure("vLLM's own server did not come up")
            time.sleep(POLL_S)
        yield Server(port, server.pid)
    finally:
        end(server)


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def end(server: subprocess.Popen[bytes]) -> None:
    """End a server and all that it started."""
    with suppress(psutil.NoSuchProcess):
        processes = tree(server.pid)
        server.terminate()
        _, alive = psutil.wait_procs(processes, timeout=20)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    server.wait()


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
