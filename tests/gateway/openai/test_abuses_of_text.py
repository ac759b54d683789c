"""The abuses that a body can hold, before its meaning, each under its number in docs."""

from __future__ import annotations

import json

import pytest

from serving.errors import Reason
from serving.gateway.openai import read
from serving.types import Endpoint
from tests.gateway.openai.bodies import BASES, CHAT, EVERYWHERE, LIMITS, accept, asked, chat, encode, refusal


@EVERYWHERE
class TestRow05AnotherCountry:
    @pytest.mark.parametrize("name", ["country", "tenant", "x_domicile_country"])
    def test_foreign(self, endpoint: Endpoint, name: str) -> None:
        refused = refusal(endpoint, BASES[endpoint] | {name: "kr"})
        assert (refused.reason, refused.param) == (Reason.DATA_RESIDENCY_MISMATCH, name)

    def test_own_is_an_unknown_name(self, endpoint: Endpoint) -> None:
        refused = refusal(endpoint, BASES[endpoint] | {"country": "EE"})
        assert (refused.reason, refused.param) == (Reason.UNKNOWN_PARAMETER, "country")

    def test_foreign_in_metadata(self, endpoint: Endpoint) -> None:
        refused = refusal(endpoint, BASES[endpoint] | {"metadata": {"tenant": "kr"}})
        assert (refused.reason, refused.param) == (Reason.DATA_RESIDENCY_MISMATCH, "metadata.tenant")


@EVERYWHERE
class TestRow13InvalidJson:
    @pytest.mark.parametrize(
        "raw", [b"", b" ", b"{", b'{"model": "m"', b"{'model': 1}", b"{} {}", b'{"a": 01}', b'{"a": "\n"}', b'{"a":1,}']
    )
    def test_refused(self, endpoint: Endpoint, raw: bytes) -> None:
        assert refusal(endpoint, raw).reason is Reason.INVALID_JSON


@EVERYWHERE
class TestRow14NotAnObject:
    @pytest.mark.parametrize("raw", [b"[]", b"null", b"1", b'"x"', b"true", b"1.5", b"9223372036854775808", b"NaN"])
    def test_refused(self, endpoint: Endpoint, raw: bytes) -> None:
        assert refusal(endpoint, raw).reason is Reason.BODY_NOT_OBJECT


@EVERYWHERE
class TestRow15DuplicateKeys:
    @pytest.mark.parametrize(
        "raw",
        [
            b'{"model": "a", "model": "b"}',
            b'{"model": "a", "mod\\u0065l": "b"}',
            b'{"x": [{"y": {"model": 1, "model": 1}}]}',
        ],
    )
    def test_refused(self, endpoint: Endpoint, raw: bytes) -> None:
        refused = refusal(endpoint, raw)
        assert (refused.reason, refused.param) == (Reason.DUPLICATE_KEY, "model")


class TestRow16Numbers:
    @pytest.mark.parametrize(
        "number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e+400", "1E999", str(2**70), str(2**63), "1" * 5000]
    )
    def test_refused_by_path(self, number: str) -> None:
        raw = f'{{"model": "m", "messages": [{{"x": {number}}}], "temperature": 1}}'.encode()
        refused = refusal(Endpoint.CHAT, raw)
        assert (refused.reason, refused.param) == (Reason.NUMBER_OUT_OF_RANGE, "messages[0].x")

    def test_at_the_top(self) -> None:
        refused = refusal(Endpoint.CHAT, b'{"temperature": NaN}')
        assert (refused.reason, refused.param) == (Reason.NUMBER_OUT_OF_RANGE, "temperature")

    @pytest.mark.parametrize("seed", [2**63 - 1, -(2**63)])
    def test_all_of_int64_passes(self, seed: int) -> None:
        assert accept(Endpoint.CHAT, CHAT | {"seed": seed}).fields["seed"] == seed

    def test_digits_in_text_pass(self) -> None:
        accept(Endpoint.CHAT, CHAT | {"messages": asked("1" * 400 + " 1e999 NaN")})


@EVERYWHERE
class TestRow17Nesting:
    @pytest.mark.parametrize("depth", [65, 500, 10**5])
    def test_arrays(self, endpoint: Endpoint, depth: int) -> None:
        raw = b'{"x": ' + b"[" * depth + b"]" * depth + b"}"
        assert refusal(endpoint, raw).reason is Reason.NESTING_TOO_DEEP

    def test_objects(self, endpoint: Endpoint) -> None:
        raw = b'{"x": ' * 10**5 + b"1" + b"}" * 10**5
        assert refusal(endpoint, raw).reason is Reason.NESTING_TOO_DEEP

    def test_openers_alone(self, endpoint: Endpoint) -> None:
        assert refusal(endpoint, b"[" * 10**6).reason in (Reason.NESTING_TOO_DEEP, Reason.INVALID_JSON)

    def test_number_in_a_deep_place(self, endpoint: Endpoint) -> None:
        assert refusal(endpoint, b"[" * 900 + b"NaN" + b"]" * 900).reason is Reason.NESTING_TOO_DEEP

    def test_arguments_of_an_earlier_call(self, endpoint: Endpoint) -> None:
        arguments = "[" * 10**5 + "]" * 10**5
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        reason, param = chat(messages=[{"role": "assistant", "tool_calls": [call]}])
        assert reason is Reason.NESTING_TOO_DEEP
        assert param == "messages[0].tool_calls[0].function.arguments"


class TestRow18Text:
    @pytest.mark.parametrize(
        "raw",
        [
            b'{"model": "\xff"}',
            b'{"model": "\xc0\xaf"}',
            b'{"model": "\xed\xa0\x80"}',
            b"\xef\xbb\xbf{}",
            '{"model": "m"}'.encode("utf-16"),
            '{"model": "m"}'.encode("utf-16-le"),
            '{"model": "m"}'.encode("utf-32-be"),
            b'{"model": "\x00"}',
        ],
    )
    def test_not_utf8(self, raw: bytes) -> None:
        assert refusal(Endpoint.CHAT, raw).reason is Reason.INVALID_TEXT

    @pytest.mark.parametrize("escape", [r"\u0000", r"\ud800", r"\uDFFF", r"\udc00\ud800", r"\ud83dx\ude00"])
    def test_escapes(self, escape: str) -> None:
        raw = f'{{"model": "m", "messages": [{{"role": "user", "content": "{escape}"}}]}}'.encode()
        refused = refusal(Endpoint.CHAT, raw)
        assert (refused.reason, refused.param) == (Reason.INVALID_TEXT, "messages[0].content")
        assert refusal(Endpoint.CHAT, f'{{"{escape}": 1}}'.encode()).reason is Reason.INVALID_TEXT

    @pytest.mark.parametrize(
        "text", ["\u202e\u2066\u200f\u061c", "👩\u200d👩\u200d👧", "😀", r"\u0000 \ud800", "\ufeff", "\x7f"]
    )
    def test_marks_and_joiners_pass(self, text: str) -> None:
        body = CHAT | {"messages": asked(text)}
        assert accept(Endpoint.CHAT, body).fields == body
        assert accept(Endpoint.CHAT, json.loads(json.dumps(body))).fields == body

    def test_escaped_pairs_pass(self) -> None:
        raw = json.dumps(CHAT | {"messages": asked("😀")}).encode()
        assert rb"\ud83d\ude00" in raw
        assert read(Endpoint.CHAT, raw, LIMITS).body is raw


def test_facts_and_params_repeat_no_text() -> None:
    """R7: what a caller wrote is in no refusal, whichever field it stands in."""
    secret = "sala-9f2c"
    for body in (
        CHAT | {"messages": [{"role": secret, "content": secret}]},
        CHAT | {"messages": asked([{"type": secret, "text": secret}])},
        CHAT | {"tools": [{"type": secret}]},
        CHAT | {"stop": [secret * 100]},
        CHAT | {"structured_outputs": {"regex": f"(?={secret})"}},
        CHAT | {"metadata": {"tenant": secret}},
        CHAT | {"tool_choice": secret},
    ):
        refused = refusal(Endpoint.CHAT, encode(body))
        assert secret not in f"{refused} {refused.facts} {refused.param}"
