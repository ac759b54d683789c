"""Log records leave as what the programmer wrote, never as what was filled in."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from opentelemetry._logs import LogRecord

from serving.records.telemetry.logs import Handler, attach, below_package, detach, fault, literals
from serving.records.telemetry.schema import Schema
from tenants.registry import load_country
from tests.house import SHIPPED

log = logging.getLogger("serving.replicas.server")
CANARY = "tell me of the canary"


@pytest.fixture
def entries() -> Iterator[list[LogRecord]]:
    found: list[LogRecord] = []
    handler = Handler(Schema(load_country(SHIPPED / "ee")), found.append)
    attach(handler)
    yield found
    detach(handler)


def logged(message: str, *filled: object, path: str = "serving/replicas/server.py", error: object = None) -> None:
    """A record as a file of ours would make it."""
    record = log.makeRecord(log.name, logging.ERROR, path, 7, message, filled, None)
    if error is not None:
        record.fault = error
    log.handle(record)


def test_a_literal_of_ours_leaves_and_what_is_filled_in_does_not(entries: list[LogRecord]) -> None:
    import serving.replicas.server as ours

    logged("%s from the engine at %s:%s", CANARY, CANARY, 3, path=ours.__file__)
    (entry,) = entries
    assert entry.body == "%s from the engine at %s:%s"
    assert entry.attributes == {"code.file.path": "serving/replicas/server.py", "code.line.number": 7}
    assert CANARY not in str(vars(entry))


def test_a_text_that_stands_in_no_source_of_ours_does_not_leave(entries: list[LogRecord]) -> None:
    import serving.replicas.server as ours

    logged(f"{CANARY} from the engine", path=ours.__file__)
    logged(CANARY, path=__file__)
    logged(CANARY, path="/nowhere/serving/none.py")
    assert [entry.body for entry in entries] == [None, None, None]
    assert literals(__file__) == frozenset()


def test_an_exception_is_its_class_and_its_place(entries: list[LogRecord]) -> None:
    try:
        SHIPPED.joinpath(CANARY).read_bytes()
    except OSError as error:
        logged("%s from the engine at %s:%s", CANARY, CANARY, 3, error=error)
        log.exception(CANARY)
    for entry in entries:
        assert entry.attributes is not None
        assert entry.attributes["exception.type"] == "FileNotFoundError"
        assert str(entry.attributes["code.file.path"]).endswith("pathlib.py")
        assert CANARY not in str(vars(entry))


def test_what_an_exception_s_text_quotes_stays_out_of_the_record_too() -> None:
    assert list(fault(ValueError(CANARY))) == ["fault"]


def test_a_record_that_cannot_be_told_fails_nobody_and_prints_nothing(
    entries: list[LogRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd(Exception):
        pass

    Odd.__name__ = CANARY
    logged("%s from the engine at %s:%s", error=Odd())
    assert CANARY not in str([vars(entry) for entry in entries])
    assert CANARY not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/home/somebody/work/serving/chat.py", "serving/chat.py"),
        ("/opt/v/lib/python3.11/site-packages/vllm/v1/engine.py", "vllm/v1/engine.py"),
        ("/opt/v/lib/python3.11/site-packages/serving/chat.py", "serving/chat.py"),
        ("/usr/lib/python3.11/json/decoder.py", "decoder.py"),
        ("<string>", "<string>"),
    ],
)
def test_a_path_says_nothing_of_the_machine(path: str, told: str) -> None:
    assert below_package(path) == told
