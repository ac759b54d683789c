"""What real clients send passes, byte for byte."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import openai
import orjson
import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params

from serving.gateway.openai import chat, completions, read, responses
from serving.types import Endpoint
from tests.gateway.openai.bodies import CHAT, CORPUS, LIMITS, SCHEMA, TOOL, accept, encode


@pytest.mark.parametrize(("endpoint", "body"), [pytest.param(e, b, id=name) for e, name, b in CORPUS])
class TestCorpus:
    def test_accepted_unchanged(self, endpoint: Endpoint, body: dict[str, Any]) -> None:
        raw = encode(body)
        prompt = read(endpoint, raw, LIMITS)
        assert prompt.body is raw
        assert prompt.fields == body
        assert prompt.model == "m"

    def test_other_parsers_read_the_same(self, endpoint: Endpoint, body: dict[str, Any]) -> None:
        assert orjson.loads(encode(body)) == read(endpoint, encode(body), LIMITS).fields


def test_nouns() -> None:
    prompt = accept(Endpoint.CHAT, CHAT | {"stream": True, "stream_options": {"include_usage": True}})
    assert (prompt.stream, prompt.include_usage, prompt.endpoint) == (True, True, Endpoint.CHAT)
    assert not accept(Endpoint.CHAT, CHAT).stream


@pytest.mark.parametrize(
    ("table", "params"),
    [
        (chat.FIELDS, chat_params.CompletionCreateParamsBase),
        (completions.FIELDS, completion_create_params.CompletionCreateParamsBase),
        (responses.FIELDS, response_create_params.ResponseCreateParamsBase),
    ],
    ids=["chat", "completions", "responses"],
)
def test_every_field_of_the_sdk_is_known(table: dict[str, object], params: type) -> None:
    assert {*params.__annotations__, "stream"} <= table.keys()


class Recorder(httpx.BaseTransport):
    """Keeps the bodies that the SDK sends, and answers none."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append((request.url.path, request.read()))
        return httpx.Response(400, json={"error": {"message": "recorded"}})


@pytest.mark.parametrize(
    "send",
    [
        lambda c: c.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}),
        lambda c: c.chat.completions.create(**CHAT, tools=[TOOL], tool_choice="required", logprobs=True),
        lambda c: c.chat.completions.create(**CHAT, n=3, seed=7, stop="x", extra_body={"top_k": 5}),
        lambda c: c.completions.create(model="m", prompt=["a", "b"], max_tokens=5, stream=True),
        lambda c: c.responses.create(model="m", input="hi", reasoning={"effort": "low"}, stream=True),
        lambda c: c.responses.create(
            model="m", input=[{"role": "user", "content": "hi"}], tools=[{"type": "function", **TOOL["function"]}]
        ),
        lambda c: c.responses.create(
            model="m", input="hi", text={"format": {"type": "json_schema", "name": "w", "schema": SCHEMA}}
        ),
    ],
)  # fmt: skip
def test_bodies_of_the_openai_sdk(send: Any) -> None:
    recorder = Recorder()
    client = openai.OpenAI(
        api_key="k", base_url="http://ee.test/v1", http_client=httpx.Client(transport=recorder), max_retries=0
    )
    with pytest.raises(openai.BadRequestError):
        send(client)
    (path, raw), *_ = recorder.bodies
    read(Endpoint(path), raw, LIMITS)
