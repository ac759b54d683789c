"""The journey, third part: a word that nobody else would write, wherever a caller may write anything (R7)."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.proof.canary import Canary
from tests.proof.cells import PORT, Cells
from tests.proof.within import at_replica, claim, key_of
from tests.running import MODEL

pytestmark = [pytest.mark.prove, pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]

Record = Callable[[str, object], None]
ENGINE_S = 2
"""How many of the wrong requests are for the engine to refuse."""
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"


def served(canary: Canary) -> list[tuple[str, dict[str, Any]]]:
    """Requests that are answered: path and body. Wherever a caller may write, the word stands."""
    say = canary.via
    system = {"role": "system", "content": say("system")}
    user = {"role": "user", "content": f"Say {say('prompt')}", "name": canary.core}
    chat = {"model": MODEL, "messages": [system, user], "max_tokens": 16, "user": say("user")}
    tool = {
        "name": canary.core,
        "description": say("tool"),
        "parameters": {"type": "object", "properties": {"say": {"enum": [say("argument")]}}, "required": ["say"]},
    }
    calling = {"id": "call_1", "type": "function", "function": {"name": canary.core, "arguments": '{"say": "it"}'}}
    told = {"role": "tool", "tool_call_id": "call_1", "content": say("tool-result")}
    return [
        (CHAT, {**chat, "stop": [say("stop")], "metadata": {canary.core: say("metadata")}}),
        (
            CHAT,
            {**chat, "stream": True, "stream_options": {"include_usage": True}, "prompt_cache_key": say("cache-key")},
        ),
        (CHAT, {**chat, "tools": [{"type": "function", "function": tool}]}),
        (CHAT, {**chat, "messages": [user, {"role": "assistant", "tool_calls": [calling]}, told]}),
        (COMPLETIONS, {"model": MODEL, "prompt": say("completion"), "max_tokens": 8, "logprobs": 2}),
        (
            RESPONSES,
            {"model": MODEL, "input": say("input"), "instructions": say("instructions"), "max_output_tokens": 16},
        ),
        (RESPONSES, {"model": MODEL, "input": say("input"), "max_output_tokens": 16, "stream": True}),
    ]


def spoken(canary: Canary) -> list[tuple[str, dict[str, Any]]]:
    """Requests that the model can only answer with the word."""
    say = canary.via
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 120, "temperature": 0}
    schema = {
        "type": "object",
        "properties": {"said": {"type": "string", "enum": [say("answer")]}},
        "required": ["said"],
        "additionalProperties": False,
    }
    format_ = {"type": "json_schema", "json_schema": {"name": "said", "strict": True, "schema": schema}}
    return [
        (CHAT, {**asked, "response_format": format_}),
        (CHAT, {**asked, "response_format": format_, "stream": True}),
        (CHAT, {**asked, "structured_outputs": {"choice": [say("choice")]}}),
        (
            COMPLETIONS,
            {"model": MODEL, "prompt": "Go on.", "structured_outputs": {"regex": say("pattern")}, "max_tokens": 60},
        ),
    ]


def refused(canary: Canary) -> list[tuple[str, bytes]]:
    """Requests with something wrong: path and body."""
    say = canary.via
    chat = {"model": MODEL, "messages": [{"role": "user", "content": say("refused")}]}
    image = [{"type": "image_url", "image_url": {"url": f"https://{canary.core}.example/{say('image')}"}}]
    format_ = {"type": "json_schema", "json_schema": {"name": "said", "schema": {"type": say("type")}}}
    wrong: list[dict[str, Any]] = [
        {**chat, "model": say("model")},
        {**chat, canary.core: say("unknown")},
        {**chat, "temperature": say("temperature")},
        {**chat, "messages": [{"role": say("role"), "content": say("content")}]},
        {**chat, "messages": [{"role": "user", "content": image}]},
        {**chat, "messages": [{"role": "user", "content": f"{say('long')} " * 3000}]},
        {**chat, "response_format": format_},
        {**chat, "structured_outputs": {"regex": f"({canary.core}" * 50}},
        {**chat, "structured_outputs": {"grammar": f"root ::= {canary.core}"}},
        {
            **chat,
            "tools": [{"type": "function", "function": {"name": say("t") * 9, "parameters": {"type": say("tool")}}}],
        },
        {**chat, "cache_salt": say("salt")},
        {**chat, "domicile_country": say("country")},
    ]
    broken = [
        json.dumps(chat).encode()[:-3],
        f'{{"{canary.core}": 1, "{canary.core}": 2}}'.encode(),
        b'{"messages": "\xff' + canary.core.encode() + b'"}',
        f'["{canary.core}"]'.encode(),
        f'{{"n": 1e999, "x": "{canary.core}"}}'.encode(),
    ]
    return [
        *((CHAT, json.dumps(each).encode()) for each in wrong),
        *((CHAT, each) for each in broken),
        (f"/v1/{canary.core}?q={canary.core}", b"{}"),
        (f"/v1/responses/resp_{canary.core}", b"{}"),
    ]


def headers(canary: Canary) -> list[dict[str, str]]:
    """Headers that a caller may write, and some that it may not."""
    say = canary.via
    plain = ("user-agent", "x-request-id", "accept-language", "cookie", "referer", "x-forwarded-for", "openai-project")
    traced = {"traceparent": f"00-{canary.core.encode().hex()[:32]}-{'ab' * 8}-01", "tracestate": f"a={canary.core}"}
    return [
        {name: say(name) for name in plain} | traced | {"baggage": f"word={canary.core}"},
        {"openai-organization": say("organisation")},
        {"x-domicile-country": say("country-header")},
        {"x-domicile-claim": say("claim")},
        {"content-type": f"text/{canary.core}"},
        {"content-encoding": canary.core},
        {"authorization": f"Bearer sk-ee-{say('key')}"},
        {"authorization": f"Basic {say('basic')}"},
    ]


def test_r7_requests_that_carry_the_word_are_answered(cells: Cells, canary: Canary, record_property: Record) -> None:
    for path, body in served(canary):
        response = cells.post("ee", path, body)
        assert response.status_code == 200, (path, response.text)
    record_property("requests with the word, answered", len(served(canary)))


def test_r7_the_model_says_the_word(cells: Cells, canary: Canary, record_property: Record) -> None:
    for path, body in spoken(canary):
        response = cells.post("ee", path, body)
        assert response.status_code == 200, (path, response.text)
        assert canary.core in said(response.text, stream=body.get("stream", False))
    record_property("answers with the word", len(spoken(canary)))


def said(text: str, *, stream: bool) -> str:
    if not stream:
        return text
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def test_r7_requests_that_carry_the_word_are_refused(cells: Cells, canary: Canary, record_property: Record) -> None:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": canary.via("header")}], "max_tokens": 2}
    seen = [
        cells.post("ee", path, body, headers={"content-type": "application/json"}) for path, body in refused(canary)
    ]
    # What the gateway lets pass is the engine's to judge, and it may know more than we do.
    assert sum(400 <= one.status_code < 500 for one in seen) >= len(seen) - ENGINE_S
    assert max(one.status_code for one in seen) < 500
    by_header = [cells.post("ee", CHAT, asked, headers=each) for each in headers(canary)]
    assert {one.status_code for one in by_header} <= {200, 400, 401, 403, 415}
    abroad = cells.post("kr", CHAT, asked, key=cells.countries["ee"].key)
    assert abroad.status_code == 401
    record_property("requests with the word, refused for one reason or another", len(seen) + len(by_header) + 1)


def test_r7_so_are_those_that_break_the_protocol_or_go_past_the_gateway(
    cells: Cells, canary: Canary, record_property: Record
) -> None:
    cell = cells.cells["ee"]
    raw = [
        f"GET /{canary.core} HTTP/1.1\r\nHost: {canary.core}\r\n\r\n",
        f"{canary.core} / HTTP/1.1\r\nHost: a\r\n\r\n",
        f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{canary.core}",
        f"{canary.core}\r\n\r\n",
    ]
    for each in raw:
        with cells.world.entered(), socket.create_connection((cell.land.address, PORT), 20) as caller:
            caller.sendall(each.encode())
            caller.shutdown(socket.SHUT_WR)
            assert caller.recv(1 << 16).startswith(b"HTTP/1.1 4")
    past = {"model": MODEL, "messages": canary.via("past"), "tools": canary.via("past")}
    assert at_replica(cell, canary.via("claim"), past).status_code == 403
    # With a claim that the replica takes: what a gateway would never let through meets vLLM's own error paths.
    for path in (CHAT, COMPLETIONS, RESPONSES):
        assert at_replica(cell, key_of(cell).sign(claim("ee", path)), past, path).status_code >= 400
    record_property("requests with the word that broke the protocol, or came past the gateway", len(raw) + 4)


def test_r7_one_that_leaves_in_the_middle_of_an_answer(
    cells: Cells, canary: Canary, hello: dict[str, Any], record_property: Record
) -> None:
    asked = {**hello, "max_tokens": 500, "ignore_eos": True, "stream": True}
    home = cells.countries["ee"]
    with cells.world.entered(), home.http() as client, client.stream("POST", CHAT, json=asked) as answer:
        next(answer.iter_lines())
    record_property("callers with the word that left in the middle of an answer", 1)
