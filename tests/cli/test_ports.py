"""A port that was found free is nobody else's by the time that a server wants it."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from serving.cli import ports
from serving.cli.ports import FIRST, LAST, LOOPBACK, free_port


@pytest.fixture
def near_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_next", LAST - 2)


def test_no_port_is_given_twice() -> None:
    given = [free_port() for _ in range(200)]
    assert len(set(given)) == 200


def test_what_somebody_holds_is_passed_over() -> None:
    with ExitStack() as held:
        first = free_port()
        for port in range(first + 1, first + 4):
            held.enter_context(socket.socket()).bind((LOOPBACK, port))
        run = free_port(5)
        assert run > first + 3
        for port in range(run, run + 5):
            held.enter_context(socket.socket()).bind((LOOPBACK, port))


@pytest.mark.usefixtures("near_the_end")
def test_a_run_never_leaves_the_range() -> None:
    run = free_port(10)
    assert FIRST <= run <= LAST - 9
