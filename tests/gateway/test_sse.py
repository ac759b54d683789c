"""Layers over a stream: whatever the network does to it, the same events come out, once each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.sse import Events, Layer, Refusals, ResponseEvents, Tail, UsageNull, error_frame
from serving.types import Endpoint, Usage
from tests.loopback import events
from tests.schemas import check

CHAT, RESPONSES = Endpoint.CHAT, Endpoint.RESPONSES
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}}

# Everything that could pass for structure, were it not inside a string.
nasty = st.sampled_from(
    [
        '"usage":{',
        '","usage":null}',
        "data: [DONE]\n\n",
        'data: {"error"',
        "}\n\n",
        '"finish_reason":"abort"',
        "\n\n",
        "\\",
    ]
)
texts = st.lists(st.one_of(st.text(max_size=8), nasty), min_size=1, max_size=6)


def wire(*payloads: object) -> bytes:
    return b"".join(b"data: " + _dumps(payload) + b"\n\n" for payload in payloads)


def _dumps(payload: object) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def chunk(text: str, **fields: object) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None, "token_ids": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [{**choice, **fields}]}


def with_usage() -> dict[str, Any]:
    return {**chunk(""), "choices": [], "usage": USAGE}


def named(payload: dict[str, Any]) -> bytes:
    return f"event: {payload['type']}\ndata: ".encode() + _dumps(payload) + b"\n\n"


def fed(tail: Tail, data: bytes, cuts: Sequence[int], *layers: Layer) -> bytes:
    """What comes out when ``data`` arrives in pieces."""
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    out = b""
    for start, end in pairwise(bounds):
        whole = tail.feed(data[start:end])
        assert not whole or whole.endswith(b"\n\n")
        for layer in layers:
            whole = layer.feed(whole)
        out += whole
    return out


cuts = st.lists(st.integers(0, 10_000), max_size=12)


@given(texts, cuts)
def test_any_split_gives_the_same_stream(pieces: list[str], at: list[int]) -> None:
    stream = wire(*map(chunk, pieces), with_usage()) + DONE
    tail = Tail(CHAT)
    assert fed(tail, stream, at) == stream
    assert tail.done
    assert tail.error is None


@given(texts, cuts)
def test_usage_is_null_in_every_chunk_but_the_one_that_has_it(pieces: list[str], at: list[int]) -> None:
    chunks = [chunk(piece) for piece in pieces]
    tail = Tail(CHAT)
    out = fed(tail, wire(*chunks, with_usage()) + DONE, at, UsageNull())
    assert out == wire(*({**each, "usage": None} for each in chunks), with_usage()) + DONE
    assert tail.usage == Usage(3, 2, 1)


@given(texts, cuts)
def test_the_usage_chunk_is_hidden_from_who_did_not_ask(pieces: list[str], at: list[int]) -> None:
    chunks = wire(*map(chunk, pieces))
    tail = Tail(CHAT, hides_usage=True)
    assert fed(tail, chunks + wire(with_usage()) + DONE, at) == chunks + DONE
    assert tail.usage == Usage(3, 2, 1)
    assert tail.done


def test_a_token_of_a_completion_may_be_called_usage() -> None:
    logprobs: dict[str, object] = {
        "text_offset": [0],
        "token_logprobs": [-1.0],
        "tokens": ["usage"],
        "top_logprobs": [{"usage": -1.0}],
    }
    stream = Events(wire({"id": "cmpl-1", "choices": [{"index": 0, "text": "usage", "logprobs": logprobs}]}))
    tail = Tail(Endpoint.COMPLETIONS, hides_usage=True)
    assert tail.feed(stream) == stream
    assert tail.usage is None
    assert events(UsageNull().feed(stream))[0].json()["usage"] is None


@given(texts, cuts)
def test_refusals_are_added_to_log_probabilities_only(pieces: list[str], at: list[int]) -> None:
    logprobs: list[dict[str, Any]] = [
        {"token": piece, "logprob": -1.0, "bytes": None, "top_logprobs": []} for piece in pieces
    ]
    stream = wire(*(chunk(piece, logprobs={"content": logprobs}) for piece in pieces)) + DONE
    for event in events(fed(Tail(CHAT), stream, at, Refusals()))[:-1]:
        assert event.json()["choices"][0]["logprobs"] == {"refusal": None, "content": logprobs}
        check("chat_completion_chunk", event.json())


@given(texts, cuts, st.integers(0, 10_000))
def test_a_death_halfway_leaves_no_torn_frame(pieces: list[str], at: list[int], death: int) -> None:
    stream = wire(*map(chunk, pieces)) + DONE
    cut = death % len(stream)
    tail = Tail(CHAT)
    out = fed(tail, stream[:cut], at)
    assert stream.startswith(out)
    assert not tail.done
    closed = events(out + error_frame(CHAT, b'{"error":{"message":"x","type":"t","param":null,"code":"c"}}'))
    assert "error" in closed[-1].json()


@given(texts, cuts)
def test_an_error_of_the_engine_ends_the_stream_before_it(pieces: list[str], at: list[int]) -> None:
    chunks = wire(*map(chunk, pieces))
    failure = {"error": {"message": 'a "quoted" thing', "type": "InternalServerError", "param": None, "code": 500}}
    tail = Tail(CHAT)
    assert fed(tail, chunks + b"data: " + json.dumps(failure).encode() + b"\n\n" + DONE, at) == chunks
    assert tail.error == failure
    assert not tail.done


@given(texts, cuts)
def test_an_aborted_answer_is_not_an_end(pieces: list[str], at: list[int]) -> None:
    chunks = wire(*map(chunk, pieces))
    tail = Tail(CHAT)
    assert fed(tail, chunks + wire(chunk("", finish_reason="abort")) + DONE, at) == chunks
    assert tail.error is not None
    assert tail.error["error"]["code"] == 503


def response(status: str) -> dict[str, Any]:
    """A response object as vLLM writes it."""
    absent = ("incomplete_details", "instructions", "metadata", "max_tool_calls", "previous_response_id", "reasoning")
    present = {
        "id": "resp_1",
        "created_at": 1,
        "model": "m",
        "object": "response",
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "none",
        "tools": [],
        "top_p": 1.0,
        "background": False,
        "max_output_tokens": 16,
        "service_tier": "auto",
        "truncation": "disabled",
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
    return {**present, **dict.fromkeys((*absent, "text", "top_logprobs", "usage", "user")), "status": status}


def deltas(pieces: list[str]) -> list[dict[str, Any]]:
    at = {"content_index": 0, "item_id": "msg_1", "output_index": 0, "logprobs": []}
    kind = "response.output_text.delta"
    return [{**at, "delta": piece, "sequence_number": 1 + n, "type": kind} for n, piece in enumerate(pieces)]


@given(texts, cuts)
def test_responses_deltas_pass_and_the_rest_is_mended(pieces: list[str], at: list[int]) -> None:
    created = {"response": response("in_progress"), "sequence_number": 0, "type": "response.created"}
    middle = b"".join(map(named, deltas(pieces)))
    last = {
        "response": response("completed"),
        "sequence_number": len(pieces) + 1,
        "type": "response.completed",
    }
    tail = Tail(RESPONSES)
    out = fed(tail, named(created) + middle + named(last), at, ResponseEvents({"metadata": {"a": "b"}}))
    assert tail.done
    assert tail.sequence == len(pieces) + 2
    assert middle in out
    for event in events(out):
        check("response_event", event.json())
    assert events(out)[0].json()["response"]["metadata"] == {"a": "b"}


@pytest.mark.parametrize("status", ["completed", "incomplete"])
def test_a_stream_of_responses_ends_as_its_response_did(status: str) -> None:
    whole = {**response(status), "incomplete_details": {"reason": "max_output_tokens"}}
    last = named({"response": whole, "sequence_number": 9, "type": "response.completed"})
    (event,) = events(ResponseEvents({}).feed(Tail(RESPONSES).feed(last)))
    assert event.name == event.json()["type"] == f"response.{status}"
    assert (event.json()["response"]["completed_at"] is None) is (status == "incomplete")


def test_the_error_event_of_responses_is_numbered_and_valid() -> None:
    tail = Tail(RESPONSES)
    tail.feed(b"".join(map(named, deltas(["a", "b"]))))
    body = b'{"error": {"message": "m", "type": "t", "param": null, "code": "stream_interrupted"}}'
    (event,) = events(error_frame(RESPONSES, body, tail.sequence))
    assert event.name == "error"
    assert event.json()["sequence_number"] == 3
    check("response_event", event.json())


@pytest.mark.parametrize(
    ("layer", "endpoint", "data"),
    [
        (lambda: Tail(CHAT), CHAT, wire(chunk("hello"))),
        (lambda: Tail(RESPONSES), RESPONSES, b"".join(map(named, deltas(["hello"])))),
    ],
)
def test_an_ordinary_event_is_not_copied(layer: Callable[[], Tail], endpoint: Endpoint, data: bytes) -> None:
    assert layer().feed(data) is data
