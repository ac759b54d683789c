"""Answers as they stand on the wire, against OpenAI's schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serving.types import Endpoint
from tests.house import MODEL, NAMED, Land
from tests.journeys.bodies import (
    ASKED,
    CHAT,
    COMPLETIONS,
    FORECAST,
    FORMAT,
    RESPONSES,
    SEA,
    WEATHER,
    ask,
    ask_stream,
    look_at_headers,
    text_of,
)
from tests.schemas import check

pytestmark = pytest.mark.asyncio(loop_scope="module")

VARIANTS: list[tuple[Endpoint, dict[str, Any]]] = [
    (CHAT, {}),
    (CHAT, {"n": 3, "seed": 7}),
    (CHAT, {"max_tokens": 2}),
    (CHAT, {"max_completion_tokens": 2}),
    (CHAT, {"logprobs": True, "top_logprobs": 2}),
    (CHAT, {"stop": ["amber", "fern", "river"]}),
    (CHAT, {"tools": [FORECAST], "tool_choice": "required"}),
    (CHAT, {"tools": [FORECAST], "tool_choice": {"type": "function", "function": {"name": "forecast"}}}),
    (CHAT, {"response_format": FORMAT}),
    (CHAT, {"response_format": {"type": "json_object"}}),
    (CHAT, {"structured_outputs": {"choice": ["yes", "no"]}}),
    (
        CHAT,
        {"temperature": 0, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "ignore_eos": True, "max_tokens": 3},
    ),
    (CHAT, {"metadata": {"a": "b"}, "user": "u", "store": True, "service_tier": "auto"}),
    (COMPLETIONS, {}),
    (COMPLETIONS, {"n": 2, "logprobs": 3}),
    (COMPLETIONS, {"prompt": ["a", "b"], "max_tokens": 3}),
    (COMPLETIONS, {"prompt": [1, 2, 3], "max_tokens": 3}),
    (RESPONSES, {}),
    (RESPONSES, {"max_output_tokens": 16, "instructions": "Be brief."}),
    (
        RESPONSES,
        {"tools": [{"type": "function", "name": "forecast", "parameters": WEATHER}], "tool_choice": "required"},
    ),
    (RESPONSES, {"text": {"format": {"type": "json_schema", "name": "w", "schema": WEATHER}}}),
    (RESPONSES, {"include": ["message.output_text.logprobs"], "top_logprobs": 2}),
    (RESPONSES, {"metadata": {"a": "b"}, "store": True, "user": "u"}),
]


@pytest.mark.parametrize(("endpoint", "fields"), VARIANTS)
async def test_answers_are_of_openais_shape(ee: Land, endpoint: Endpoint, fields: dict[str, Any]) -> None:
    async with ee.client() as client:
        await ask(client, endpoint, **fields)


@pytest.mark.parametrize(("endpoint", "fields"), VARIANTS)
async def test_so_is_every_event_of_a_stream(ee: Land, endpoint: Endpoint, fields: dict[str, Any]) -> None:
    async with ee.client() as client:
        await ask_stream(client, endpoint, **fields)


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_usage_comes_last_and_only_where_it_was_asked_for(ee: Land, endpoint: Endpoint) -> None:
    async with ee.client() as client:
        *chunks, last = [
            event.json() for event in await ask_stream(client, endpoint, stream_options={"include_usage": True})
        ]
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]
        assert last["usage"]["prompt_tokens_details"]["cached_tokens"] >= 0
        assert all(chunk["usage"] is None for chunk in chunks)
        for options in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
            plain = [event.json() for event in await ask_stream(client, endpoint, **options)]
            assert all(chunk["choices"] and "usage" not in chunk for chunk in plain)


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_a_stream_says_what_the_whole_answer_says(ee: Land, endpoint: Endpoint) -> None:
    async with ee.client() as client:
        whole = (await ask(client, endpoint, n=2, seed=3))["choices"]
        chunks = await ask_stream(client, endpoint, n=2, seed=3)
    for index, choice in enumerate(whole):
        assert text_of(chunks, index) == (choice["text"] if endpoint is COMPLETIONS else choice["message"]["content"])


async def test_a_stream_has_one_id_and_it_is_the_request_s(ee: Land) -> None:
    async with ee.client() as client:
        response = await client.post(CHAT, json={**ASKED[CHAT], "stream": True})
        ids = {json.loads(line[6:])["id"] for line in response.text.splitlines() if line.startswith("data: {")}
    assert ids == {f"chatcmpl-{response.headers['x-request-id']}"}


async def test_request_ids_are_never_the_same_nor_the_client_s(ee: Land) -> None:
    found = set()
    async with ee.client() as client:
        for _ in range(8):
            for path in ("/v1/models", "/v1/nothing", "/healthz"):
                response = await client.get(path, headers={"X-Request-Id": "mine"})
                look_at_headers(response, "ee")
                found.add(response.headers["x-request-id"])
    assert len(found) == 24


async def test_models_are_those_that_the_organisation_may_use(ee: Land) -> None:
    ee.add_organisation("granted", models=frozenset({MODEL, NAMED}))
    for organisation, ids in (("acme", [MODEL]), ("granted", [MODEL, NAMED])):
        async with ee.client(organisation) as client:
            response = await client.get("/v1/models")
            look_at_headers(response, "ee")
            check("model_list", response.json())
            assert [model["id"] for model in response.json()["data"]] == ids
            for id_ in (MODEL, NAMED):
                one = await client.get(f"/v1/models/{id_}")
                assert one.status_code == (200 if id_ in ids else 404)
                check("model" if id_ in ids else "error", one.json())


async def test_health_is_for_everybody(ee: Land) -> None:
    async with ee.client(None) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


@pytest.mark.parametrize(
    ("accepted", "language", "word"),
    [
        (None, "et", "puudub"),
        ("ko", "ko", "매개변수"),
        ("fr, ko;q=0.5, et;q=0.4", "ko", "매개변수"),
        ("en-GB", "en", "missing"),
        ("ar", "ar", "model"),
        ("ru;q=0.9, et;q=0.1", "ru", "параметр"),
        ("zz, *;q=0.1", "et", "puudub"),
        ("\xff;;;q=", "et", "puudub"),
    ],
)
async def test_messages_are_in_the_caller_s_language_and_codes_are_not(
    ee: Land, accepted: str | None, language: str, word: str
) -> None:
    headers = {} if accepted is None else {"Accept-Language": accepted.encode("latin-1")}
    async with ee.client() as client:
        response = await client.post(CHAT, json={"messages": SEA}, headers=headers)  # type: ignore[arg-type]
    check("error", response.json())
    error = response.json()["error"]
    assert response.headers["content-language"] == language
    assert word in error["message"].lower()
    assert (error["code"], error["param"], error["type"]) == (
        "missing_required_parameter",
        "model",
        "invalid_request_error",
    )


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_an_error_found_while_streaming_is_a_refusal_while_nothing_was_sent(ee: Land, endpoint: Endpoint) -> None:
    async with ee.client() as client:
        response = await client.post(endpoint, json={**ASKED[endpoint], "stream": True, "logit_bias": {"5000": 1}})
    assert response.status_code == 400
    check("error", response.json())
    assert response.json()["error"]["param"] == "logit_bias"
