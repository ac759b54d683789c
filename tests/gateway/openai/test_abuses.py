"""The forty abuses, as far as a body can hold them, each under its number in docs."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import pytest
from PIL import ImageFile

from serving.errors import Reason
from serving.gateway.openai import Limits, read
from serving.types import Endpoint
from tests.gateway.openai.bodies import (
    BASES,
    CHAT,
    COMPLETION,
    LIMITS,
    SCHEMA,
    TOOL,
    accept,
    chat,
    completion,
    encode,
    image,
    refusal,
    response,
)

EVERYWHERE = pytest.mark.parametrize("endpoint", list(Endpoint))


def asked(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


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


class TestRow25Choices:
    @pytest.mark.parametrize("ask", [chat, completion])
    def test_refused(self, ask: Any) -> None:
        assert ask(n=10**9) == (Reason.INTEGER_ABOVE_MAX_VALUE, "n")
        assert ask(n=0) == (Reason.INTEGER_BELOW_MIN_VALUE, "n")
        assert ask(n=True) == (Reason.INVALID_TYPE, "n")
        assert ask(n=1.0) == (Reason.INVALID_TYPE, "n")

    def test_limit(self) -> None:
        accept(Endpoint.CHAT, CHAT | {"n": 8})
        assert refusal(Endpoint.CHAT, CHAT | {"n": 9}).facts == {"limit": 8, "got": 9}

    def test_prompts_times_choices(self) -> None:
        assert completion(prompt=["a"] * 17, n=8) == (Reason.ARRAY_TOO_LONG, "prompt")
        accept(Endpoint.COMPLETIONS, COMPLETION | {"prompt": ["a"] * 16, "n": 8})


class TestRow26BestOf:
    def test_refused(self) -> None:
        assert completion(best_of=10**9) == (Reason.INTEGER_ABOVE_MAX_VALUE, "best_of")
        assert completion(best_of=1, n=2) == (Reason.INTEGER_BELOW_MIN_VALUE, "best_of")
        assert completion(best_of=4, n=2) == (Reason.INTEGER_ABOVE_MAX_VALUE, "best_of")
        assert chat(best_of=1) == (Reason.UNKNOWN_PARAMETER, "best_of")

    def test_as_many_as_returned_pass(self) -> None:
        accept(Endpoint.COMPLETIONS, COMPLETION | {"best_of": 2, "n": 2})


class TestRow27MaxTokens:
    @pytest.mark.parametrize(
        ("ask", "name"),
        [
            (chat, "max_tokens"),
            (chat, "max_completion_tokens"),
            (completion, "max_tokens"),
            (response, "max_output_tokens"),
        ],
    )
    def test_refused(self, ask: Any, name: str) -> None:
        assert ask(**{name: 0}) == (Reason.INTEGER_BELOW_MIN_VALUE, name)
        assert ask(**{name: -1}) == (Reason.INTEGER_BELOW_MIN_VALUE, name)
        assert ask(**{name: 10**12}) == (Reason.INTEGER_ABOVE_MAX_VALUE, name)
        assert ask(**{name: 8193}) == (Reason.INTEGER_ABOVE_MAX_VALUE, name)
        assert ask(**{name: "5"}) == (Reason.INVALID_TYPE, name)

    def test_min_above_max(self) -> None:
        assert chat(min_tokens=5, max_tokens=4) == (Reason.INTEGER_ABOVE_MAX_VALUE, "min_tokens")


class TestRow28Context:
    """What cannot fit however it is tokenized; the replica counts the rest."""

    def test_refused(self) -> None:
        small = Limits(context_length=16, country="ee")
        for endpoint, name in zip(Endpoint, ("messages", "prompt", "input"), strict=True):
            value = asked("a" * 10_000) if endpoint is Endpoint.CHAT else "a" * 10_000
            refused = refusal(endpoint, BASES[endpoint] | {name: value}, small)
            assert (refused.reason, refused.param) == (Reason.CONTEXT_LENGTH_EXCEEDED, name)

    def test_token_ids_are_counted(self) -> None:
        assert completion(prompt=[1] * 8193) == (Reason.CONTEXT_LENGTH_EXCEEDED, "prompt")

    def test_pictures_are_no_text(self) -> None:
        body = CHAT | {"messages": asked([{"type": "image_url", "image_url": {"url": image(2000, 2000)}}])}
        accept(Endpoint.CHAT, body, Limits(context_length=2, country="ee"))


class TestRow29Logprobs:
    def test_refused(self) -> None:
        assert chat(logprobs=True, top_logprobs=21) == (Reason.INTEGER_ABOVE_MAX_VALUE, "top_logprobs")
        assert chat(logprobs=True, top_logprobs=-1) == (Reason.INTEGER_BELOW_MIN_VALUE, "top_logprobs")
        assert chat(top_logprobs=1) == (Reason.INVALID_VALUE, "top_logprobs")
        assert response(top_logprobs=21) == (Reason.INTEGER_ABOVE_MAX_VALUE, "top_logprobs")
        assert completion(logprobs=6) == (Reason.INTEGER_ABOVE_MAX_VALUE, "logprobs")

    @pytest.mark.parametrize("ask", [chat, completion, response])
    @pytest.mark.parametrize("value", [None, 0, 1, -1])
    def test_of_the_prompt(self, ask: Any, value: object) -> None:
        assert ask(prompt_logprobs=value) == (Reason.UNKNOWN_PARAMETER, "prompt_logprobs")

    def test_of_the_prompt_by_the_back_door(self) -> None:
        assert completion(echo=True, logprobs=1) == (Reason.UNSUPPORTED_PARAMETER, "echo")


class TestRow30LogitBias:
    @pytest.mark.parametrize(
        "value",
        [
            {str(i): 1 for i in range(301)},
            {"-1": 1},
            {str(2**31): 1},
            {"9" * 5000: 1},
            {"01": 1},
            {"٣": 1},
            {" 1": 1},
            {"x": 1},
            {"1": 101},
            {"1": -100.5},
            {"1": True},
            {"1": "1"},
            [1],
            5,
        ],
    )
    @pytest.mark.parametrize("ask", [chat, completion])
    def test_refused(self, ask: Any, value: object) -> None:
        assert ask(logit_bias=value)[1] == "logit_bias"


class TestRow31Stop:
    @pytest.mark.parametrize("value", [["a"] * 5, "", [""], [], "x" * 2**20, ["x" * 257], [1], [None], 5, {}])
    @pytest.mark.parametrize("ask", [chat, completion])
    def test_refused(self, ask: Any, value: object) -> None:
        assert ask(stop=value)[1] == "stop"


class TestRow32Ranges:
    @pytest.mark.parametrize(
        ("name", "value", "reason"),
        [
            ("temperature", 3, Reason.DECIMAL_ABOVE_MAX_VALUE),
            ("temperature", -0.1, Reason.DECIMAL_BELOW_MIN_VALUE),
            ("temperature", True, Reason.INVALID_TYPE),
            ("temperature", "1", Reason.INVALID_TYPE),
            ("top_p", -1, Reason.DECIMAL_BELOW_MIN_VALUE),
            ("top_p", 0, Reason.DECIMAL_BELOW_MIN_VALUE),
            ("top_p", 1.1, Reason.DECIMAL_ABOVE_MAX_VALUE),
            ("min_p", 2, Reason.DECIMAL_ABOVE_MAX_VALUE),
            ("top_k", -2, Reason.INTEGER_BELOW_MIN_VALUE),
            ("repetition_penalty", 0, Reason.DECIMAL_BELOW_MIN_VALUE),
        ],
    )
    @pytest.mark.parametrize("ask", [chat, completion, response])
    def test_refused(self, ask: Any, name: str, value: object, reason: Reason) -> None:
        assert ask(**{name: value}) == (reason, name)

    @pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
    def test_penalties(self, name: str) -> None:
        assert chat(**{name: 2.1}) == (Reason.DECIMAL_ABOVE_MAX_VALUE, name)
        assert response(**{name: 1}) == (Reason.UNKNOWN_PARAMETER, name)

    def test_models(self) -> None:
        assert chat(model="x" * 129) == (Reason.STRING_TOO_LONG, "model")
        assert chat(model="") == (Reason.EMPTY_STRING, "model")
        assert chat(model=5) == (Reason.INVALID_TYPE, "model")
        refused = refusal(Endpoint.CHAT, {"messages": []})
        assert (refused.reason, refused.param) == (Reason.MISSING_REQUIRED_PARAMETER, "model")


class TestRow33Grammars:
    @pytest.mark.parametrize(
        "pattern",
        [
            "a" * 1025,
            "a{1000}",
            "a{999999999999}",
            "a{300,}",
            "(a{100}){101}",
            "((a{25}){25}){25}",
            "(a)\\1",
            "(?=a)b",
            "(?!a)b",
            "(?<=a)b",
            "(?<!a)b",
            "(?P=x)",
            "(?i)a",
            "(a",
            "a)",
            "[a",
            "(" * 40 + ")" * 40,
        ],
    )
    def test_regex(self, pattern: str) -> None:
        assert chat(structured_outputs={"regex": pattern}) == (Reason.INVALID_GRAMMAR, "structured_outputs.regex")

    def test_grammar(self) -> None:
        assert chat(structured_outputs={"grammar": "a" * 20_000})[0] is Reason.INVALID_GRAMMAR
        assert chat(structured_outputs={"grammar": 'root ::= "a"{1,9999}'})[0] is Reason.INVALID_GRAMMAR
        accept(Endpoint.CHAT, CHAT | {"structured_outputs": {"grammar": 'root ::= "a"{1,9}'}})

    def test_choice(self) -> None:
        assert chat(structured_outputs={"choice": ["a"] * 257}) == (Reason.INVALID_GRAMMAR, "structured_outputs.choice")
        assert chat(structured_outputs={"choice": ["a" * 257]}) == (Reason.INVALID_GRAMMAR, "structured_outputs.choice")

    @pytest.mark.parametrize("value", [{}, {"regex": "a", "choice": ["a"]}, {"json_object": False}])
    def test_not_one_constraint(self, value: object) -> None:
        assert chat(structured_outputs=value)[0] is Reason.INVALID_VALUE

    @pytest.mark.parametrize("name", ["structural_tag", "whitespace_pattern", "_backend"])
    def test_other_knobs(self, name: str) -> None:
        assert chat(structured_outputs={name: "x"}) == (Reason.UNKNOWN_PARAMETER, f"structured_outputs.{name}")

    def test_beside_a_response_format(self) -> None:
        reason = chat(structured_outputs={"regex": "a"}, response_format={"type": "json_object"})
        assert reason == (Reason.UNSUPPORTED_PARAMETER, "structured_outputs")


def deep(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def doubling(levels: int) -> dict[str, object]:
    definitions = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": definitions | {f"d{levels}": {"type": "string"}}}


BAD_SCHEMAS = {
    "deep": deep(40),
    "wide": {"properties": {f"p{i}": {"type": "string"} for i in range(5001)}},
    "long": {"description": "x" * 70_000},
    "enum": {"enum": list(range(1001))},
    "self": {"properties": {"x": {"$ref": "#"}}},
    "recursive": {"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}},
    "doubling": doubling(20),
    "remote": {"$ref": "http://169.254.169.254/schema"},
    "file": {"$ref": "file:///etc/passwd"},
    "missing": {"$ref": "#/$defs/nowhere"},
    "pointer": {"$ref": "#/$defs/a/b", "$defs": {"a/b": {}, "a": {"b": {}}}},
    "definitions as a list": {"$defs": [{"$ref": "http://x"}]},
    "dynamic": {"$dynamicRef": "#x"},
    "repeated": {"type": "array", "minItems": 10**6},
    "long string": {"maxLength": 10**9},
    "pattern": {"pattern": "(a{100}){200}"},
    "pattern of names": {"patternProperties": {"(?=x)": {}}},
}


class TestRow34Schemas:
    @pytest.mark.parametrize("schema", BAD_SCHEMAS.values(), ids=BAD_SCHEMAS)
    def test_refused(self, schema: dict[str, object]) -> None:
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        assert chat(response_format=wanted) == (Reason.SCHEMA_TOO_COMPLEX, "response_format")
        flat = {"type": "json_schema", "name": "x", "schema": schema}
        assert response(text={"format": flat}) == (Reason.SCHEMA_TOO_COMPLEX, "text.format")
        tools = [TOOL, {"type": "function", "function": {"name": "f", "parameters": schema}}]
        assert chat(tools=tools) == (Reason.SCHEMA_TOO_COMPLEX, "tools[1]")
        for form in (schema, json.dumps(schema)[: 2**20]):
            reason, param = chat(structured_outputs={"json": form})
            assert reason in (Reason.SCHEMA_TOO_COMPLEX, Reason.STRING_TOO_LONG)
            assert param == "structured_outputs.json"

    def test_honest_schemas_pass(self) -> None:
        for schema in (SCHEMA, deep(20), doubling(8), {}, {"properties": {"$ref": {"type": "string"}, "enum": {}}}):
            accept(Endpoint.CHAT, CHAT | {"structured_outputs": {"json": schema}})

    @pytest.mark.parametrize(
        "value", [5, "text", {"type": "structural_tag"}, {}, {"type": "json_schema"}, {"type": []}]
    )
    def test_formats(self, value: object) -> None:
        assert str(chat(response_format=value)[1]).startswith("response_format")


class TestRow35Tools:
    @pytest.mark.parametrize(
        "tool",
        [
            {"type": "web_search"},
            {"type": "custom", "custom": {"name": "x"}},
            {"type": "mcp", "server_url": "http://169.254.169.254"},
            {"function": {"name": "f"}},
            {"type": "function", "function": {"name": "a b"}},
            {"type": "function", "function": {"name": ""}},
            {"type": "function", "function": {"name": "x" * 65}},
            {"type": "function", "function": {"name": "x\n"}},
            {"type": "function", "function": {"name": 5}},
            "x",
        ],
    )
    def test_refused(self, tool: object) -> None:
        assert chat(tools=[TOOL, tool]) == (Reason.INVALID_TOOL, "tools[1]")

    @pytest.mark.parametrize(
        "kind", ["mcp", "web_search_preview", "file_search", "code_interpreter", "custom", None, 5]
    )
    def test_responses(self, kind: object) -> None:
        assert response(tools=[{"type": kind, "name": "x"}]) == (Reason.INVALID_TOOL, "tools[0]")

    def test_how_many(self) -> None:
        assert chat(tools=[TOOL] * 129) == (Reason.ARRAY_TOO_LONG, "tools")
        assert chat(tools=[]) == (Reason.EMPTY_ARRAY, "tools")

    def test_choice(self) -> None:
        other = {"type": "function", "function": {"name": "other"}}
        assert chat(tools=[TOOL], tool_choice=other) == (Reason.INVALID_VALUE, "tool_choice")
        assert chat(tool_choice="auto") == (Reason.MISSING_REQUIRED_PARAMETER, "tools")
        assert chat(tools=[TOOL], tool_choice="some") == (Reason.INVALID_VALUE, "tool_choice")
        assert chat(tools=[TOOL], tool_choice={"type": "custom"}) == (Reason.UNSUPPORTED_PARAMETER, "tool_choice")


class TestRow36Unknown:
    @pytest.mark.parametrize(
        "name",
        [
            *("chat_template", "chat_template_kwargs", "prompt_embeds", "media_io_kwargs", "mm_processor_kwargs"),
            *("cache_salt", "kv_transfer_params", "ec_transfer_params", "vllm_xargs", "priority", "request_id"),
            *(
                "session_id",
                "documents",
                "use_beam_search",
                "allowed_token_ids",
                "logprob_token_ids",
                "stream_interval",
            ),
            *("truncate_prompt_tokens", "thinking_token_budget", "include_reasoning", "previous_input_messages"),
            *("enable_response_messages", "return_token_ids", "watermarking", "add_special_tokens", "guided_json"),
            *("Model", "model ", "größe", ""),
        ],
    )
    @EVERYWHERE
    def test_refused_by_name(self, endpoint: Endpoint, name: str) -> None:
        for value in (None, "x", {"a": 1}):
            refused = refusal(endpoint, BASES[endpoint] | {name: value})
            assert (refused.reason, refused.param) == (Reason.UNKNOWN_PARAMETER, name)

    def test_names_are_cut_and_printable(self) -> None:
        reason, param = chat(**{"a\x1b[31m\n" + "x" * 500: 1})
        assert reason is Reason.UNKNOWN_PARAMETER
        assert param is not None
        assert param.isprintable()
        assert len(param) == 64

    @pytest.mark.parametrize(
        ("message", "param"),
        [
            ({"role": "user", "content": "x", "task": "y"}, "messages[0].task"),
            ({"role": "developer", "content": "x", "tools": []}, "messages[0].tools"),
            ({"role": "user", "content": [{"type": "text", "text": "x", "uuid": "u"}]}, "messages[0].content[0].uuid"),
        ],
    )
    def test_inside_messages(self, message: object, param: str) -> None:
        assert chat(messages=[message]) == (Reason.UNKNOWN_PARAMETER, param)

    def test_stream_options(self) -> None:
        assert chat(stream=True, stream_options={"continuous_usage_stats": True}) == (
            Reason.UNKNOWN_PARAMETER,
            "stream_options.continuous_usage_stats",
        )
        assert chat(stream_options={"include_usage": True}) == (Reason.INVALID_VALUE, "stream_options")
        assert response(stream=True, stream_options={"include_usage": True})[0] is Reason.UNKNOWN_PARAMETER

    @pytest.mark.parametrize("name", ["audio", "functions", "function_call", "moderation", "web_search_options"])
    def test_known_to_openai_alone(self, name: str) -> None:
        assert chat(**{name: {}}) == (Reason.UNSUPPORTED_PARAMETER, name)
        accept(Endpoint.CHAT, CHAT | {name: None})

    @pytest.mark.parametrize("name", ["conversation", "prompt", "context_management", "background_options", "image"])
    def test_known_to_openai_alone_in_responses(self, name: str) -> None:
        assert response(**{name: {}}) == (Reason.UNSUPPORTED_PARAMETER, name)

    def test_what_is_not_stored(self) -> None:
        assert response(previous_response_id="resp_1") == (Reason.RESPONSE_NOT_FOUND, "previous_response_id")
        assert response(background=True) == (Reason.UNSUPPORTED_PARAMETER, "background")
        assert response(input=[{"type": "item_reference", "id": "x"}]) == (Reason.RESPONSE_NOT_FOUND, "input[0]")
        assert completion(suffix="x") == (Reason.UNSUPPORTED_PARAMETER, "suffix")


ADDRESSES = [
    "http://169.254.169.254/latest/meta-data",
    "https://example.com/x.png",
    "file:///etc/passwd",
    "HTTP://x",
    "//x",
    "data:text/html;base64,PGI+",
    "data:image/svg+xml;base64,PHN2Zz4=",
    "data:image/png,x",
    "DATA:image/png;base64,",
    " data:image/png;base64,",
    "data:image/png;base64,",
    "data:image/png;base64,aGVsbG8=",
    "data:image/png;base64,!!!!",
    "data:image/png;base64,aGVsbG8",
    "data:image/png;charset=x;base64,aGVsbG8=",
    "",
]


class TestRow37Addresses:
    @pytest.mark.parametrize("url", ADDRESSES)
    def test_refused(self, url: str) -> None:
        reason = chat(messages=asked([{"type": "image_url", "image_url": {"url": url}}]))
        assert reason == (Reason.INVALID_IMAGE_URL, "messages[0].content[0].image_url.url")
        part = {"type": "input_image", "image_url": url}
        reason = response(input=[{"role": "user", "content": [part]}])
        assert reason == (Reason.INVALID_IMAGE_URL, "input[0].content[0].image_url")
        output = {"type": "function_call_output", "call_id": "c", "output": [part]}
        assert response(input=[output]) == (Reason.INVALID_IMAGE_URL, "input[0].output[0].image_url")

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "video_url", "video_url": {"url": "http://x"}},
            {"type": "audio_url", "audio_url": {"url": "http://x"}},
            {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
            {"type": "file", "file": {"file_id": "x"}},
            {"type": "image_embeds", "image_embeds": "x"},
            {"type": "prompt_embeds", "data": "x"},
            {"type": "input_image", "image_url": "http://x"},
            {"image_url": "http://x"},
            {"type": "text", "text": "x", "image_url": "http://x", "uuid": "u"},
            {"type": ["text"], "text": "x"},
            {"type": "image_url", "image_url": "http://x"},
            "text",
        ],
    )
    def test_other_ways_to_fetch(self, part: object) -> None:
        assert str(chat(messages=asked([part]))[1]).startswith("messages[0].content[0]")

    @pytest.mark.parametrize(
        "part",
        [{"type": "input_file", "file_url": "http://x"}, {"type": "image_url", "image_url": {"url": "http://x"}}],
    )
    def test_other_ways_to_fetch_in_responses(self, part: object) -> None:
        reason = response(input=[{"role": "user", "content": [part]}])
        assert reason[1] == "input[0].content[0].type"

    @pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif"])
    def test_data_passes(self, kind: str) -> None:
        url = image(kind=kind)
        accept(Endpoint.CHAT, CHAT | {"messages": asked([{"type": "image_url", "image_url": {"url": url}}])})


class TestRow38ImageBombs:
    def part(self, url: str) -> dict[str, object]:
        return {"type": "image_url", "image_url": {"url": url}}

    def test_pixels(self) -> None:
        refused = refusal(Endpoint.CHAT, CHAT | {"messages": asked([self.part(image(5000, 5000))])})
        assert refused.reason is Reason.IMAGE_TOO_LARGE
        assert refused.facts == {"limit": 1 << 24, "got": 25_000_000, "name": "pixels"}

    def test_header_alone(self) -> None:
        header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        data += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
        url = "data:image/png;base64," + base64.b64encode(data).decode()
        reason, param = chat(messages=asked([self.part(url)]))
        assert (reason, param) == (Reason.IMAGE_TOO_LARGE, "messages[0].content[0].image_url.url")

    def test_bytes(self) -> None:
        url = "data:image/png;base64," + "A" * (6 << 20)
        refused = refusal(Endpoint.CHAT, CHAT | {"messages": asked([self.part(url)])})
        assert (refused.reason, refused.facts["name"]) == (Reason.IMAGE_TOO_LARGE, "bytes")

    def test_many_together(self) -> None:
        parts = [self.part(image(4000, 4000))] * 5
        assert chat(messages=asked(parts)) == (Reason.IMAGE_TOO_LARGE, "messages")

    def test_no_pixel_is_decoded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        picture = image()

        def load(_: object) -> None:
            raise AssertionError("decoded")

        monkeypatch.setattr(ImageFile.ImageFile, "load", load)
        accept(Endpoint.CHAT, CHAT | {"messages": asked([self.part(picture)])})


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
