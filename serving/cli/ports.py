"""Ports on loopback that nobody holds, for servers whose address nobody has written down."""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"
FIRST, LAST = 20_000, 32_767
"""Between what Ray gives its workers and what Linux gives to outgoing connections: of the latter a cluster has
hundreds, and one that is opened between the look and the start takes the port that was found free."""

_next = FIRST + secrets.randbelow(LAST - FIRST)


def free_port(run: int = 1) -> int:
    """The first of ``run`` ports that follow each other, none of them given before by this process.

    Raises:
        OSError: there is no such run.
    """
    global _next
    for _ in range(FIRST, LAST, run):
        first, _next = (_next, _next + run) if _next + run <= LAST + 1 else (FIRST, FIRST + run)
        if _free(range(first, first + run)):
            return first
    raise OSError(f"no {run} ports from {FIRST} to {LAST} are free at {LOOPBACK}")


def _free(ports: range) -> bool:
    with ExitStack() as held:
        for port in ports:
            probe = held.enter_context(socket.socket())
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
    return True
