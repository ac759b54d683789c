from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.records.record import GENESIS, OWN, Kind, Record, Value, decode, encode
from tests.records.logs import answered, refusal

TIME = "2026-02-02T02:40:00.000Z"
REFUSED: dict[str, Value] = {"request": "req_1", "rule": "r3", "reason": "incorrect_hostname"}


@pytest.mark.parametrize("stepped", [0, 1200])
def test_a_line_is_read_as_it_was_written(stepped: int) -> None:
    record = answered().record()
    line = decode(encode(7, TIME, record, GENESIS, stepped))
    assert line is not None
    assert (line.seq, line.time, line.kind, line.prev) == (7, TIME, "request", GENESIS)
    assert line.fields == record.fields
    assert line.stepped is bool(stepped)


@pytest.mark.parametrize("field", ["request", "rule", "reason", "organisation", "model", "site", "node"])
@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of France?",
        "two words",
        "line\nbreak",
        "täht",
        "한국",
        "",
        "a" * 129,
        '"',
        "{}",
        "\x00",
        "Hello,",
        None,
        1.5,
        ["a"],
        True,
    ],
)
def test_r7_text_has_no_place_in_a_record(field: str, text: str) -> None:
    with pytest.raises(ValueError, match=field) as refused:
        Record(Kind.REFUSAL, {**REFUSED, field: text})
    assert not text or str(text) not in str(refused.value).replace(field, "")


@given(st.text(max_size=200).filter(lambda text: any(character.isspace() for character in text)))
def test_r7_no_text_with_a_space_has(text: str) -> None:
    with pytest.raises(ValueError, match="cannot say this"):
        Record(Kind.REFUSAL, {**REFUSED, "model": text})


@pytest.mark.parametrize("count", [-1, 2**53, 1.0, True, "12", None])
def test_a_count_is_a_count(count: int) -> None:
    with pytest.raises(ValueError, match="cannot say this as duration_ms"):
        Record(Kind.REFUSAL, {**REFUSED, "duration_ms": count})


def test_a_kind_has_its_own_fields() -> None:
    with pytest.raises(ValueError, match="lacks reason"):
        Record(Kind.REFUSAL, {"request": "req_1", "rule": "r3"})
    with pytest.raises(ValueError, match="has no prompt"):
        Record(Kind.REFUSAL, {**REFUSED, "prompt": "x"})
    with pytest.raises(ValueError, match="has no prompt_tokens"):
        Record(Kind.REFUSAL, {**REFUSED, "prompt_tokens": 1})


def test_only_the_log_s_own_kinds_carry_a_statement() -> None:
    takes = {kind for kind in Kind if _takes(kind, {"statement": "a.b.c"})}
    assert takes < OWN


def _takes(kind: Kind, fields: dict[str, Value]) -> bool:
    try:
        Record(kind, fields)
    except ValueError:
        return False
    return True


GOOD = encode(7, TIME, refusal(), GENESIS)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"null\n",
        b"[]\n",
        GOOD[:-1],
        GOOD + b"\n",
        b" " + GOOD,
        GOOD.replace(b",", b", ", 1),
        GOOD.replace(b'"seq":7', b'"seq":7,"seq":7'),
        GOOD.replace(b'"seq":7', b'"seq":7.0'),
        GOOD.replace(b'"seq":7', b'"seq":-7'),
        GOOD.replace(b'"seq":7', b'"seq":true'),
        GOOD.replace(b'"seq":7,', b""),
        GOOD.replace(b'"kind"', b'"clock_stepped":"x","kind"'),
        GOOD.replace(b'"prev":"0', b'"prev":"g'),
        GOOD.replace(b"2026-02-02T", b"2026-02-02 "),
        GOOD.replace(b'"fields":{', b'"fields":[{').replace(b'},"prev"', b'}],"prev"'),
        b'{"seq":1,"fields":' + b"[" * 500 + b"]" * 500 + b"}\n",
        b"[" * 10**5 + b"\n",
        b"\xff" + GOOD,
    ],
)
def test_what_the_log_does_not_write_is_no_line(line: bytes) -> None:
    assert decode(GOOD) is not None
    assert decode(line) is None


@given(st.binary())
def test_nothing_crashes_the_reader(raw: bytes) -> None:
    assert decode(raw) is None
