"""Every error has one answer: OpenAI's shape, the headers its SDKs obey, and nothing of a foreign exception."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import DomicileError, Failed, Reason, Refused, Wire
from serving.gateway.messages import LANGUAGES, text
from serving.gateway.problems import Answer, error_event, problem


def headers(answer: Answer) -> dict[str, str]:
    names = [name for name, _ in answer.headers]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() for name in names)
    return {name.decode(): value.decode() for name, value in answer.headers}


def told(body: bytes) -> dict[str, object]:
    whole = json.loads(body)
    assert list(whole) == ["error"]
    assert list(whole["error"]) == ["message", "type", "param", "code"]
    error: dict[str, object] = whole["error"]
    return error


def subclasses(cls: type[DomicileError]) -> set[type[DomicileError]]:
    direct = set(cls.__subclasses__())
    return direct.union(*map(subclasses, direct))


def test_no_reason_is_another_name_for_another() -> None:
    assert [name for name, reason in Reason.__members__.items() if reason.name != name] == []


@pytest.mark.parametrize("name", Reason.__members__)
def test_every_reason_has_an_answer(name: str) -> None:
    reason = Reason[name]
    wire = reason.wire
    raised = (Refused if wire.status < 500 else Failed)(reason, param="x")
    answer = problem(raised, "en", "req-1")
    assert answer.status == wire.status
    assert 400 <= answer.status < 600
    error = told(answer.body)
    assert (error["type"], error["param"], error["code"]) == (wire.type, "x", wire.code)
    assert error["message"] == text(reason, "en", {}, "x")
    assert ("connection" in headers(answer)) == wire.close


def test_every_error_class_is_mapped_by_its_reason() -> None:
    known = subclasses(DomicileError)
    assert {Refused, Failed} <= known
    for cls in known:
        assert issubclass(cls, Refused | Failed), f"{cls} says not whose fault it is"
        error = cls.__new__(cls)
        DomicileError.__init__(error, Reason.UNKNOWN_PATH)
        assert problem(error, "en", "req-1").status == 404


@pytest.mark.parametrize(
    "error",
    [
        ValueError("the prompt: a secret"),
        KeyError("secret"),
        ExceptionGroup("secret", [ValueError("secret")]),
        asyncio.CancelledError("secret"),
        Failed(Reason.INTERNAL_ERROR, detail="secret"),
    ],
)
def test_nothing_of_a_foreign_exception_is_told(error: BaseException) -> None:
    answer = problem(error, "et", "req-1")
    assert answer.status == 500
    assert told(answer.body)["code"] == "internal_error"
    for data in (answer.body, error_event(error, "et"), *(value for _, value in answer.headers)):
        assert b"secret" not in data


def test_the_ordinary_headers() -> None:
    answer = problem(Refused(Reason.UNKNOWN_PATH), "ko", "req-1", "kr")
    assert headers(answer) == {
        "content-type": "application/json",
        "content-length": str(len(answer.body)),
        "content-language": "ko",
        "x-request-id": "req-1",
        "x-domicile-country": "kr",
        "x-should-retry": "false",
    }
    assert "찾" in answer.body.decode() or "없" in answer.body.decode(), "UTF-8 is not escaped"


def test_content_language_is_the_one_written_in() -> None:
    answer = problem(Refused(Reason.UNKNOWN_PATH), "fr\r\nset-cookie: x", "req-1")
    assert headers(answer)["content-language"] == "en"
    assert "x-domicile-country" not in headers(answer)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (Failed(Reason.COUNTRY_UNAVAILABLE, retry_after_s=5), ("5", "5000", "true")),
        (Failed(Reason.COUNTRY_UNAVAILABLE, retry_after_s=0), ("0", "0", "true")),
        (Refused(Reason.REQUEST_TIMEOUT, retry_after_s=1), ("1", "1000", "true")),
        (Failed(Reason.STREAM_INTERRUPTED), (None, None, None)),
        (Failed(Reason.INTERNAL_ERROR), (None, None, None)),
        (Refused(Reason.REQUEST_TIMEOUT), (None, None, None)),
        (Refused(Reason.INVALID_JSON), (None, None, "false")),
        (Refused(Reason.INVALID_API_KEY), (None, None, "false")),
        (Refused(Reason.BODY_TOO_LARGE), (None, None, "false")),
    ],
)
def test_what_sdks_are_told_about_retrying(error: DomicileError, advice: tuple[str | None, ...]) -> None:
    found = headers(problem(error, "en", "req-1"))
    assert tuple(found.get(name) for name in ("retry-after", "retry-after-ms", "x-should-retry")) == advice


def test_a_spent_quota_is_not_retried_and_a_full_bucket_is(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = Reason.UNKNOWN_PATH
    monkeypatch.setattr(reason, "wire", Wire(429, "any"))
    assert headers(problem(Refused(reason), "en", "req-1"))["x-should-retry"] == "false"
    assert headers(problem(Refused(reason, retry_after_s=2), "en", "req-1"))["x-should-retry"] == "true"


def test_headers_of_particular_statuses() -> None:
    wrong_method = headers(problem(Refused(Reason.METHOD_NOT_ALLOWED, allow="GET, POST"), "en", "req-1"))
    assert wrong_method["allow"] == "GET, POST"
    assert headers(problem(Refused(Reason.NO_KEY), "en", "req-1"))["www-authenticate"] == "Bearer"
    assert headers(problem(Refused(Reason.MALFORMED_HTTP), "en", "req-1"))["connection"] == "close"


def test_allow_and_seconds_stand_in_the_message() -> None:
    assert "GET, POST" in problem(Refused(Reason.METHOD_NOT_ALLOWED, allow="GET, POST"), "sk", "r").body.decode()
    assert "17 s" in problem(Failed(Reason.COUNTRY_UNAVAILABLE, retry_after_s=17), "de", "r").body.decode()


def test_an_event_is_the_body_of_the_answer() -> None:
    error = Failed(Reason.STREAM_INTERRUPTED)
    assert error_event(error, "ja") == problem(error, "ja", "req-1").body


VALUES = st.one_of(st.text(), st.integers(), st.floats())


@given(
    st.sampled_from(list(Reason)),
    st.sampled_from([*LANGUAGES, "fr"]),
    st.one_of(st.none(), st.text()),
    st.dictionaries(st.sampled_from(["limit", "got", "expected", "name", "address", "model", "detail"]), VALUES),
)
def test_an_answer_is_always_json_with_the_four_keys(
    reason: Reason, language: str, param: str | None, facts: dict[str, str | int | float]
) -> None:
    error = Refused(reason, param=param, **facts)  # type: ignore[arg-type]
    answer = problem(error, language, "req-1", "ee")
    said = told(answer.body)
    assert isinstance(said["message"], str)
    assert b"\n" not in answer.body
    assert headers(answer)["content-length"] == str(len(answer.body))
