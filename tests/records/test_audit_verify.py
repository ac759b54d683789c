"""Every way to falsify a log that is tried here is found, and found where it was done."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from serving.records.chain import Flaw
from serving.records.folder import segment_name
from tests.records.falsified import Log, at, first


def test_a_true_log_is_true(log: Log) -> None:
    verdict = log.verdict(log.changed(lambda _: None))
    assert verdict.faults == ()
    assert (verdict.first, verdict.last, verdict.records) == (1, len(log.lines), len(log.lines))
    assert verdict.segments == 3
    assert len(verdict.checkpoints) == 4


@given(st.data())
def test_any_byte_that_is_changed_is_found_in_its_line(log: Log, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(log.lines) - 1))
    name, number = log.lines[index]
    line = bytearray(log.line(index))
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] ^= data.draw(st.integers(1, 255))
    verdict = log.verdict(log.with_line(index, bytes(line)))
    assert at(first(verdict)) == (name, number)
    if b"\n" not in line[:-1] and place < len(line) - 1:
        assert {at(fault) for fault in verdict.faults} == {(name, number)}
        assert first(verdict).place.seq == index + 1


@pytest.mark.parametrize("member", [b'"seq":', b'"time":"', b'"fields":{"', b'":"', b'"prev":"', b"}"])
def test_each_line_answers_for_itself_alone(log: Log, member: bytes) -> None:
    for index, (name, number) in enumerate(log.lines):
        line = bytearray(log.line(index))
        line[line.index(member) + len(member)] ^= 1
        verdict = log.verdict(log.with_line(index, bytes(line)))
        assert {at(fault) for fault in verdict.faults} == {(name, number)}
        assert first(verdict).place.seq == index + 1


@given(st.data())
def test_any_bit_of_the_head_is_found(log: Log, data: st.DataObject) -> None:
    head = bytearray(log.head.rstrip(b"\n"))
    head[data.draw(st.integers(0, len(head) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assume(b"\n" not in head and b"\r" not in head)
    assert first(log.verdict(log.changed(lambda _: None), bytes(head))).flaw is Flaw.HEAD


@given(st.data())
def test_a_line_that_was_taken_out_is_missed(log: Log, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(log.lines) - 1))
    name, number = log.lines[index]
    fault = first(log.verdict(log.changed(lambda copy: copy[name].__delitem__(number - 1))))
    assert fault.place.seq == index + 1
    assert fault.place.segment == name
    last = index == len(log.lines) - 1
    assert fault.flaw is (Flaw.TRUNCATED if last else Flaw.MISSING)
    assert fault.place.line == (number if number < len(log.segments[name]) else 0)


@given(st.data())
def test_a_line_that_stands_twice_is_seen(log: Log, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(log.lines) - 1))
    after = data.draw(st.integers(index, len(log.lines) - 1))
    name, number = log.lines[after]
    verdict = log.verdict(log.changed(lambda copy: copy[name].insert(number, log.line(index))))
    assert [(fault.flaw, at(fault), fault.place.seq) for fault in verdict.faults] == [
        (Flaw.MISPLACED, (name, number + 1), index + 1)
    ]


@given(st.data())
def test_lines_that_changed_places_are_seen(log: Log, data: st.DataObject) -> None:
    one, other = sorted(data.draw(st.sets(st.integers(0, len(log.lines) - 1), min_size=2, max_size=2)))

    def swap(copy: dict[str, list[bytes]]) -> None:
        for here, there in ((one, other), (other, one)):
            name, number = log.lines[here]
            copy[name][number - 1] = log.line(there)

    verdict = log.verdict(log.changed(swap))
    assert (at(first(verdict)), first(verdict).place.seq) == (log.lines[one], one + 1)
    assert log.lines[other] in {at(fault) for fault in verdict.faults}


@given(st.data())
def test_a_tail_that_was_cut_off_is_found_at_any_byte(log: Log, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(log.lines) - 1))
    kept = data.draw(st.integers(0, len(log.line(index)) - 1))
    name, number = log.lines[index]

    def cut(copy: dict[str, list[bytes]]) -> None:
        copy[name][number - 1 :] = [log.line(index)[:kept]]
        for later in [later for later in copy if later > name]:
            del copy[later]

    verdict = log.verdict(log.changed(cut))
    assert first(verdict).place.seq == index + 1
    assert first(verdict).place.segment == name
    assert first(verdict).flaw is (Flaw.DAMAGED if kept else Flaw.TRUNCATED)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_segment_that_is_gone_is_named(log: Log, place: int) -> None:
    name = list(log.segments)[place]
    fault = first(log.verdict(log.changed(lambda copy: copy.__delitem__(name))))
    begin = int(name[6:18])
    assert fault.place.seq == (1 if place == 0 else begin)
    assert fault.flaw is (Flaw.TRUNCATED if place == 2 else Flaw.MISSING)
    assert place != 1 or name in fault.expected


def test_all_segments_gone_is_found(log: Log) -> None:
    assert first(log.verdict({})).flaw is Flaw.TRUNCATED


def test_a_segment_under_another_name_is_found(log: Log) -> None:
    segments = log.changed(lambda _: None)
    segments[segment_name(10**6)] = segments.pop(list(segments)[1])
    assert not log.verdict(segments).ok


@given(st.data())
def test_a_line_that_was_put_in_is_found(log: Log, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(log.lines) - 1))
    name, number = log.lines[index]
    put = data.draw(st.sampled_from([b"\n", b"{}\n", b"null\n", log.line(0).replace(b"2026", b"2025")]))
    verdict = log.verdict(log.changed(lambda copy: copy[name].insert(number - 1, put)))
    assert at(first(verdict)) in {(name, number), (name, number + 1)} if index else not verdict.ok
