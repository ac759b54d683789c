"""A replica dies while it answers, another carries on: the client sees one answer, the same as if nothing had been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.types import Endpoint
from tests.house import Land, cut_after, land, lands
from tests.journeys.bodies import ASKED, CHAT, COMPLETIONS, SEA, text_of
from tests.loopback import Event, events
from tests.schemas import check

USAGE = {"stream_options": {"include_usage": True}}


async def streamed(land: Land, endpoint: Endpoint, **fields: object) -> list[Event]:
    async with land.client() as client:
        response = await client.post(endpoint, json={**ASKED[endpoint], "stream": True, **fields})
    assert response.status_code == 200, response.text
    return events(response.content)


def look_at(chunks: list[Event], schema: str) -> None:
    """One stream: one id, one time, one role, one end."""
    whole = [chunk.json() for chunk in chunks]
    for chunk in whole:
        check(schema, chunk)
    for name in ("id", "created", "model", "object"):
        assert len({chunk[name] for chunk in whole}) == 1
    choices = [choice for chunk in whole for choice in chunk["choices"]]
    assert [choice["finish_reason"] is not None for choice in choices] == [False] * (len(choices) - 1) + [True]
    if schema.startswith("chat"):
        assert ["role" in choice["delta"] for choice in choices] == [True] + [False] * (len(choices) - 1)


@pytest.mark.parametrize("how", ["vanishes", "breaks off", "says so"])
@pytest.mark.parametrize("pieces", [1, 2, 5, 13])
async def test_the_answer_is_the_same_as_without_the_loss(tmp_path: Path, pieces: int, how: str) -> None:
    async with land(tmp_path, replicas=2) as ee:
        *whole, usage, _ = await streamed(ee, CHAT, **USAGE)
        lost = cut_after(ee, pieces, how)
        *chunks, sum_, done = await streamed(ee, CHAT, **USAGE)
        assert len(lost) == 1
        assert done.data == "[DONE]"
        look_at(chunks, "chat_completion_chunk")
        assert text_of(chunks) == text_of(whole)
        assert sum_.json()["choices"] == []
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            assert sum_.json()["usage"][name] == usage.json()["usage"][name]
        assert all(chunk.json()["usage"] is None for chunk in chunks)
        assert chunks[-1].json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("pieces", [1, 4, 5])
async def test_the_limit_counts_what_was_told_before(tmp_path: Path, limit: str, pieces: int) -> None:
    async with land(tmp_path, replicas=2) as ee:
        fields: dict[str, Any] = {limit: 6, "min_tokens": 5, "seed": 3, **USAGE}
        *whole, usage, _ = await streamed(ee, CHAT, **fields)
        lost = cut_after(ee, pieces)
        *chunks, sum_, _ = await streamed(ee, CHAT, **fields)
        assert lost
        look_at(chunks, "chat_completion_chunk")
        assert text_of(chunks) == text_of(whole)
        assert chunks[-1].json()["choices"][0]["finish_reason"] == "length"
        assert sum_.json()["usage"]["completion_tokens"] == usage.json()["usage"]["completion_tokens"] == 6


async def test_two_losses_in_a_row(tmp_path: Path) -> None:
    async with land(tmp_path, replicas=3) as ee:
        whole = text_of((await streamed(ee, CHAT))[:-1])
        first, second = cut_after(ee, 3), cut_after(ee, 5)
        *chunks, done = await streamed(ee, CHAT)
        assert done.data == "[DONE]"
        look_at(chunks, "chat_completion_chunk")
        assert text_of(chunks) == whole
        assert first != second


async def test_with_nobody_left_the_stream_ends_with_an_error_and_never_abroad(tmp_path: Path) -> None:
    async with lands(tmp_path, "ee", "kr") as (ee, kr):
        cut_after(ee, 3)
        *told, last = await streamed(ee, CHAT)
        check("error", last.json())
        assert text_of(told)
        assert not kr.engine.claims


async def test_a_completion_goes_on_behind_its_own_text(tmp_path: Path) -> None:
    async with land(tmp_path, replicas=2) as ee:
        lost = cut_after(ee, 3)
        *chunks, usage, done = await streamed(ee, COMPLETIONS, max_tokens=9, ignore_eos=True, **USAGE)
        assert done.data == "[DONE]"
        look_at(chunks, "completion_chunk")
        assert sum(bool(chunk.json()["choices"][0]["text"]) for chunk in chunks) == 9
        assert usage.json()["usage"]["completion_tokens"] == 9
        assert usage.json()["usage"]["prompt_tokens"] == len(["Once", "upon", "a", "time"])
        assert lost


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"stop": ["amber tundra"]},
        {"logprobs": True},
        {"skip_special_tokens": False},
        {"structured_outputs": {"choice": ["a b c d e f g"]}},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {
            "messages": [*SEA, {"role": "assistant", "content": "So"}],
            "continue_final_message": True,
            "add_generation_prompt": False,
        },
    ],
)
async def test_what_cannot_be_carried_on_is_not(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with land(tmp_path, replicas=2) as ee:
        lost = cut_after(ee, 1)
        *told, last = await streamed(ee, CHAT, ignore_eos=True, max_tokens=9, **fields)
        check("error", last.json())
        assert all("error" not in json.loads(event.data) for event in told)
        assert len(lost) == 1


async def test_only_the_country_s_replicas_are_asked_and_with_claims_of_their_own(tmp_path: Path) -> None:
    async with land(tmp_path, replicas=2) as ee:
        lost = cut_after(ee, 3)
        await streamed(ee, CHAT)
        claims = [claim for stand in ee.stands for claim in stand.engine.claims]
        assert len(claims) == 2
        assert len({claim.request_id for claim in claims}) == 2
        assert len({claim.request_id.partition(".")[0] for claim in claims}) == 1
        assert {claim.organisation for claim in claims} == {"acme"}
        assert len({claim.cache_salt for claim in claims}) == 1
        assert lost
