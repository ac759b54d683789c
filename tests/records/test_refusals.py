"""A storm of refusals is told, and cannot fill the disk."""

from __future__ import annotations

from serving.records.errors import RecordsUnavailable
from serving.records.record import Kind, Record
from serving.records.refusals import SINGLY, WINDOW_S, Refusals


class Log:
    """Takes records, as long as it can."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.full = False
        self.now = 0.0

    def note(self, record: Record) -> None:
        if self.full:
            raise RecordsUnavailable("the disk is full")
        self.records.append(record)

    def clock(self) -> float:
        return self.now

    def refusals(self) -> Refusals:
        return Refusals(self.note, self.clock)

    def times(self) -> int:
        """How many refusals all records together tell of."""
        return sum(int(record.fields.get("times", 1)) for record in self.records)


async def test_few_are_told_one_by_one() -> None:
    log = Log()
    refusals = log.refusals()
    for number in range(3):
        refusals.note(f"req_{number}", "r3", "incorrect_hostname", status=401)
    assert [record.fields["request"] for record in log.records] == ["req_0", "req_1", "req_2"]
    assert {record.kind for record in log.records} == {Kind.REFUSAL}


async def test_of_many_none_is_untold_and_few_are_written() -> None:
    log = Log()
    refusals = log.refusals()
    for number in range(10_000):
        refusals.note(f"req_{number}", "authenticate", "invalid_api_key")
    refusals.settle()
    assert len(log.records) == SINGLY + 1
    assert log.times() == 10_000
    assert log.records[-1].fields["request"] == "req_9999"


async def test_a_storm_of_one_sort_hides_no_other_and_no_organisation_another() -> None:
    log = Log()
    refusals = log.refusals()
    for number in range(1000):
        refusals.note(f"req_{number}", "authenticate", "no_key")
        refusals.note(f"req_{number}", "share", "rate_limit_exceeded", organisation="acme")
    refusals.note("req_1", "share", "rate_limit_exceeded", organisation="umbra")
    refusals.note("req_2", "r3", "incorrect_hostname")
    assert len(log.records) == 2 * SINGLY + 2


async def test_the_next_minute_begins_with_the_sum_of_the_last() -> None:
    log = Log()
    refusals = log.refusals()
    for number in range(SINGLY + 5):
        refusals.note(f"req_{number}", "authenticate", "no_key")
    log.now += WINDOW_S
    refusals.note("req_new", "authenticate", "no_key")
    assert [record.fields.get("times") for record in log.records[-2:]] == [5, None]
    assert log.times() == SINGLY + 6


async def test_what_cannot_be_told_is_kept_until_it_can() -> None:
    log = Log()
    refusals = log.refusals()
    log.full = True
    for number in range(200):
        refusals.note(f"req_{number}", "r10", "records_unavailable")
    refusals.settle()
    log.full = False
    refusals.settle()
    assert log.times() == 200
    assert len(log.records) == 1
    refusals.settle()
    assert len(log.records) == 1
