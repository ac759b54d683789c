"""The live table: what Serve reports, and what the gateway learns by itself."""

from __future__ import annotations

from dataclasses import replace
from threading import Thread

import pytest

from serving.placement import Replica
from serving.replicas.table import QUARANTINE_S, UNKNOWN_CONTEXT, Table
from serving.types import Address

HERE = Address("127.0.0.1", 1)
ONE = Replica("one", "ee", "m", HERE, outstanding_tokens=10, context_length=4096)
TWO = Replica("two", "ee", "m", HERE, context_length=8192)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def table(*replicas: Replica, clock: Clock | None = None) -> Table:
    found = Table(clock or Clock())
    found.report("m", replicas)
    return found


def test_an_empty_one_knows_nobody() -> None:
    empty = Table()
    assert empty.replicas("m") == []
    assert empty.models() == set()
    assert empty.longest_context() == UNKNOWN_CONTEXT


def test_a_report_replaces_the_one_before_for_its_model_only() -> None:
    found = table(ONE, TWO)
    found.report("n", (replace(ONE, id="three", model="n"),))
    found.report("m", (TWO,))
    assert found.replicas("m") == [TWO]
    assert [replica.id for replica in found.replicas("n")] == ["three"]
    found.report("m", ())
    assert found.models() == {"n"}


def test_the_longest_context_is_what_anybody_serves() -> None:
    assert table(ONE, TWO).longest_context() == 8192
    assert table(replace(ONE, context_length=0)).longest_context() == UNKNOWN_CONTEXT


def test_tokens_count_while_their_request_is_there() -> None:
    found = table(ONE)

    def load() -> int:
        return found.replicas("m")[0].outstanding_tokens

    with found.serving(ONE, 5):
        with found.serving(ONE, 7):
            assert load() == 22
        assert load() == 15
        with pytest.raises(ValueError, match="x"), found.serving(ONE, 1):
            raise ValueError("x")
        assert load() == 15
    assert load() == 10
    assert found._sent == {}


def test_requests_without_tokens_are_no_trouble() -> None:
    found = table(ONE)
    with found.serving(ONE, 0), found.serving(ONE, 0):
        pass
    assert found._sent == {}


def test_looking_leaves_nothing_behind() -> None:
    found = table(ONE, TWO)
    found.replicas("m")
    assert found._sent == {}


def test_one_that_did_not_answer_is_left_alone_for_a_while() -> None:
    clock = Clock()
    found = table(ONE, TWO, clock=clock)
    found.avoid(ONE)
    assert [replica.healthy for replica in found.replicas("m")] == [False, True]
    assert found.models() == {"m"}
    found.avoid(TWO)
    assert found.models() == set()
    clock.now = QUARANTINE_S
    assert [replica.healthy for replica in found.replicas("m")] == [True, True]
    found.avoid(ONE)
    assert set(found._avoided) == {"one"}


def test_a_report_does_not_end_a_quarantine() -> None:
    found = table(ONE)
    found.avoid(ONE)
    found.report("m", (ONE,))
    assert not found.replicas("m")[0].healthy


def test_a_model_whose_replicas_all_drain_is_not_served() -> None:
    assert table(replace(ONE, draining=True)).models() == set()
    assert table(replace(ONE, healthy=False)).models() == set()
    assert table(replace(ONE, draining=True), TWO).models() == {"m"}


def test_reports_from_another_thread_are_whole() -> None:
    found = table(ONE, TWO)
    busy = True

    def report() -> None:
        while busy:
            found.report("m", (ONE, TWO))
            found.report("m", (TWO, ONE))
            found.report("n", (ONE,))

    thread = Thread(target=report)
    thread.start()
    try:
        for _ in range(3000):
            assert len(found.replicas("m")) == 2
            assert found.models() >= {"m"}
            found.longest_context()
    finally:
        busy = False
        thread.join()
