"""The abuses in what a field may build: grammars, schemas, tools, images; each under its number in docs."""

from __future__ import annotations

import base64
import json
import struct
import zlib

import pytest
from PIL import ImageFile

from serving.errors import Reason
from serving.types import Endpoint
from tests.gateway.openai.bodies import CHAT, SCHEMA, TOOL, accept, asked, chat, image, refusal, response
from tests.gateway.openai.schemas import BAD_SCHEMAS, deep, doubling


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
