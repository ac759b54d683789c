"""Whatever event an answer is cut after, what the client gets is the answer that it would have got."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engine.fake import FakeEngine
from serving.engine.port import ClaimFacts, claimed
from serving.gateway.openai import Limits, read
from serving.replicas import continuation
from serving.replicas.continuation import (
    MAX_TOLD_BYTES,
    Rest,
    Told,
    beginning,
    continued,
    counts,
    ending,
    is_spent,
    possible,
    prompt_to_count,
    text_to_count,
)
from serving.types import Endpoint, Prompt, ServiceClass
from tests.loopback import events

CHAT, COMPLETIONS = Endpoint.CHAT, Endpoint.COMPLETIONS
LIMITS = Limits(context_length=4096, country="ee")
CLAIM = ClaimFacts("acme", "r", ServiceClass.STANDARD, 2e9, "salt")
SEA = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me of the sea."}]


def prompt(endpoint: Endpoint = CHAT, **fields: object) -> Prompt:
    asked = {"messages": SEA} if endpoint is CHAT else {"prompt": "Once upon a time"}
    return read(endpoint, json.dumps({"model": "fake", "stream": True, **asked, **fields}).encode(), LIMITS)


async def post(path: str, body: bytes, request_id: str = "req_1") -> bytes:
    engine = FakeEngine()
    await engine.start()
    with claimed(CLAIM):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(engine.app), base_url="http://replica") as client:
            headers = {"content-type": "application/json", "x-request-id": request_id}
            return (await client.post(path, content=body, headers=headers)).content


async def count(body: bytes) -> int:
    return int(json.loads(await post("/tokenize", body))["count"])


async def rest(asked: Prompt, told: list[bytes], sizes: list[int]) -> bytes:
    """What ``steps/resume`` does, without anybody to ask but the fake."""
    begun = beginning(told)
    assert begun is not None
    spent = await count(text_to_count(asked, begun)) if counts(asked, begun) else 0
    prompt_tokens = await count(prompt_to_count(asked)) if asked.include_usage else 0
    if is_spent(asked, begun, spent):
        return ending(asked, begun, prompt_tokens, spent)
    stream = await post(asked.endpoint.value, continued(asked, begun, spent).body, "req_2")
    mend = Rest(begun, prompt_tokens, spent)
    found = b""
    while stream:
        size = sizes.pop() if sizes else len(stream)
        piece, stream = stream[:size], stream[size:]
        fed = mend.feed(piece)
        assert fed == b"" or fed.endswith(b"\n\n"), "whole events"
        found += fed
    return found


def whole_events(stream: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in stream.split(b"\n\n")[:-1]]


def told_of(stream: bytes) -> dict[str, Any]:
    """What a client makes of a stream."""
    *chunks, done = events(stream)
    assert done.data == "[DONE]"
    found = [chunk.json() for chunk in chunks]
    choices = [choice for chunk in found for choice in chunk["choices"]]
    usage = [chunk["usage"] for chunk in found if chunk.get("usage")]
    for one in usage:
        del one["prompt_tokens_details"]
    return {
        "ids": {(chunk["id"], chunk["object"], chunk["model"]) for chunk in found},
        "times": len({chunk["created"] for chunk in found}),
        "text": "".join(choice.get("delta", choice).get("content") or choice.get("text", "") for choice in choices),
        "roles": sum("role" in choice.get("delta", ()) for choice in choices),
        "ends": [choice["finish_reason"] for choice in choices if choice["finish_reason"]],
        "usage": usage,
    }


@settings(deadline=None, max_examples=60)
@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 5),
            "max_tokens": st.integers(1, 40),
            "max_completion_tokens": st.integers(1, 40),
            "min_tokens": st.just(1),
            "temperature": st.just(0.5),
            "stream_options": st.just({"include_usage": True}),
            "n": st.just(1),
            "tools": st.none(),
            "logprobs": st.just(False),
        },
    ),
    cut=st.floats(0, 1),
    sizes=st.lists(st.integers(1, 400), max_size=40),
)
def test_the_client_s_text_is_the_uninterrupted_one(fields: dict[str, Any], cut: float, sizes: list[int]) -> None:
    asked = prompt(**fields)
    assert possible(asked)

    async def run() -> None:
        stream = await post(CHAT, asked.body)
        all_events = whole_events(stream)
        told = all_events[: round(cut * (len(all_events) - 1))]
        assert told_of(b"".join(told) + await rest(asked, told, sizes)) == told_of(stream) | (
            {} if told else {"ids": {("chatcmpl-req_2", "chat.completion.chunk", "fake")}}
        )

    asyncio.run(run())


@pytest.mark.parametrize("usage", [False, True])
async def test_it_holds_after_every_single_event(usage: bool) -> None:
    asked = prompt(max_tokens=7, stream_options={"include_usage": usage})
    stream = await post(CHAT, asked.body)
    all_events = whole_events(stream)
    for cut in range(1, len(all_events)):
        assert told_of(b"".join(all_events[:cut]) + await rest(asked, all_events[:cut], [])) == told_of(stream)


async def test_it_may_be_cut_twice() -> None:
    asked = prompt(stream_options={"include_usage": True})
    stream = await post(CHAT, asked.body)
    told = whole_events(stream)[:4]
    told += whole_events(await rest(asked, told, []))[:3]
    assert told_of(b"".join(told) + await rest(asked, told, [])) == told_of(stream)


@pytest.mark.parametrize(("fields", "left"), [({}, 13), ({"max_tokens": 5}, 2), ({"max_tokens": None}, None)])
def test_a_completion_goes_on_behind_its_text(fields: dict[str, Any], left: int | None) -> None:
    asked = prompt(COMPLETIONS, echo=False, **fields)
    chunk = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "fake"}
    piece = {"index": 0, "text": " there was a", "logprobs": None, "finish_reason": None}
    begun = beginning([b"data: " + json.dumps({**chunk, "choices": [piece]}).encode() + b"\n\n"])
    assert begun is not None
    follow = json.loads(continued(asked, begun, 3).body)
    assert follow["prompt"] == "Once upon a time there was a"
    assert follow.get("max_tokens") == left
    assert follow["echo"] is False


def test_the_continuation_is_asked_for_as_vllm_wants_it() -> None:
    asked = prompt(max_tokens=9, max_completion_tokens=8, min_tokens=4, user="u")
    begun = continuation.Beginning({"id": "x"}, "The sea\n", finished=False, summed=False)
    follow = continued(asked, begun, 3)
    assert json.loads(follow.body) == follow.fields
    assert follow.fields == {
        **asked.fields,
        "messages": [*SEA, {"role": "assistant", "content": "The sea\n"}],
        "continue_final_message": True,
        "add_generation_prompt": False,
        "max_tokens": 6,
        "max_completion_tokens": 5,
        "min_tokens": 1,
    }
    assert asked.fields["messages"] == SEA


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"stop": "x"},
        {"logprobs": True},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"choice": ["a"]}},
        {"reasoning_effort": "low"},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"add_generation_prompt": False},
        {"skip_special_tokens": False},
        {"include_stop_str_in_output": True},
        {"stream": False},
    ],
)
def test_what_is_not_carried_on(fields: dict[str, Any]) -> None:
    assert possible(prompt())
    assert not possible(prompt(**fields))


@pytest.mark.parametrize("fields", [{"prompt": ["a"]}, {"prompt": [1]}, {"echo": True}, {"logprobs": 0}, {"n": 2}])
def test_which_completions_are_not(fields: dict[str, Any]) -> None:
    assert possible(prompt(COMPLETIONS))
    assert not possible(prompt(COMPLETIONS, **fields))


def test_responses_are_not() -> None:
    assert not possible(read(Endpoint.RESPONSES, b'{"model": "m", "input": "x", "stream": true}', LIMITS))


@pytest.mark.parametrize(
    "delta", [{"tool_calls": [{}]}, {"reasoning": "hm"}, {"reasoning_content": "hm"}, {"content": " \n"}]
)
def test_beginnings_that_are_not(delta: dict[str, Any]) -> None:
    chunk = {"id": "1", "object": "c", "created": 1, "model": "m", "choices": [{"delta": delta, "finish_reason": None}]}
    assert beginning([b"data: " + json.dumps(chunk).encode() + b"\n\n"]) is None


def test_what_was_told_is_kept_by_reference_and_within_bounds() -> None:
    told = Told()
    piece = b"x" * 1000
    told.add(piece)
    assert told.events[0] is piece
    for _ in range(MAX_TOLD_BYTES // 1000 - 1):
        told.add(piece)
    assert told.whole
    told.add(piece)
    told.add(b"")
    assert not told.whole
    assert told.events == []
