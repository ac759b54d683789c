"""What each kind of user sends: the right endpoint, the wanted lengths, and what was said before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from loadtests.client.asking import AGENT_SHARED, Message, opening, question, went_on
from loadtests.record import Arrival, Kind

ARRIVAL = Arrival(
    serial=7,
    at=0.0,
    phase="calm",
    side="domicile",
    country="ee",
    organisation="acme",
    kind=Kind.CHAT,
    prompt_tokens=100,
    output_tokens=12,
    shared_tokens=40,
    prefix=3,
)


def asked(kind: Kind, **changes: Any) -> dict[str, Any]:
    found = question(replace(ARRIVAL, kind=kind, **changes), "m")
    fields: dict[str, Any] = orjson.loads(orjson.dumps(found.fields))
    return fields


def words(messages: list[Message]) -> int:
    return sum(len(str(one["content"]).split()) for one in messages)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (Kind.CHAT, "/v1/chat/completions"),
        (Kind.CHAT_PLAIN, "/v1/chat/completions"),
        (Kind.COMPLETIONS, "/v1/completions"),
        (Kind.RESPONSES, "/v1/responses"),
        (Kind.CONVERSATION, "/v1/chat/completions"),
        (Kind.AGENT, "/v1/chat/completions"),
        (Kind.DOCUMENT, "/v1/chat/completions"),
        (Kind.STRUCTURED, "/v1/chat/completions"),
        (Kind.FOREIGN, "/v1/chat/completions"),
    ],
)
def test_every_kind_asks_its_endpoint_for_an_answer_of_its_length(kind: Kind, path: str) -> None:
    found = question(replace(ARRIVAL, kind=kind), "m")
    assert found.path == path
    assert found.stream == found.fields["stream"] == (kind is not Kind.CHAT_PLAIN)
    longest = found.fields.get("max_tokens") or found.fields.get("max_output_tokens")
    assert longest == 12


@pytest.mark.parametrize("kind", [Kind.CHAT, Kind.COMPLETIONS, Kind.AGENT])
def test_an_answer_has_exactly_its_length(kind: Kind) -> None:
    fields = asked(kind)
    assert (fields["max_tokens"], fields["min_tokens"], fields["ignore_eos"]) == (12, 12, True)


def test_an_endpoint_without_extensions_is_sent_none() -> None:
    fields = question(ARRIVAL, "m", exact=False).fields
    assert not {"min_tokens", "ignore_eos"} & set(fields)


@pytest.mark.parametrize("kind", [Kind.CHAT, Kind.COMPLETIONS, Kind.CONVERSATION])
def test_a_stream_is_asked_what_it_used(kind: Kind) -> None:
    assert asked(kind)["stream_options"] == {"include_usage": True}


def test_a_plain_chat_and_a_response_have_no_options_of_a_stream() -> None:
    assert "stream_options" not in asked(Kind.CHAT_PLAIN)
    assert "stream_options" not in asked(Kind.RESPONSES)


def test_what_is_shared_is_the_same_and_comes_first() -> None:
    one, other = opening(ARRIVAL), opening(replace(ARRIVAL, serial=8))
    assert one[0] == other[0]
    assert one[1] != other[1]
    assert opening(replace(ARRIVAL, prefix=4))[0] != one[0]


def test_a_prompt_has_about_as_many_words_as_it_should_have_tokens() -> None:
    assert 70 <= words(opening(ARRIVAL)) <= 110


def test_a_later_turn_repeats_everything_and_adds_to_it() -> None:
    first = opening(ARRIVAL)
    second = went_on(first, "Tere!", replace(ARRIVAL, kind=Kind.CONVERSATION, serial=8, turn=1))
    assert second[: len(first)] == first
    assert second[len(first)] == {"role": "assistant", "content": "Tere!"}
    assert second[-1]["role"] == "user"


def test_an_agent_shares_nearly_all_and_goes_on_with_what_its_tools_said() -> None:
    agent = replace(ARRIVAL, kind=Kind.AGENT, prompt_tokens=1000, shared_tokens=0)
    first = opening(agent)
    assert words(first[:1]) >= AGENT_SHARED * words(first) * 0.98
    assert asked(Kind.AGENT)["tools"]
    second = went_on(first, "Let me look.", replace(agent, serial=8, turn=1))
    call, result = second[-2:]
    assert call["tool_calls"][0]["id"] == result["tool_call_id"]
    assert result["role"] == "tool"


def test_a_shape_is_asked_for_by_a_schema_and_may_end_by_itself() -> None:
    fields = asked(Kind.STRUCTURED)
    assert fields["response_format"]["type"] == "json_schema"
    assert not {"min_tokens", "ignore_eos"} & set(fields)


def test_another_run_says_other_words_of_the_same_length() -> None:
    """Else the second run would find the first one's prompts in the cache."""
    one, same, other = (question(ARRIVAL, "m", salt=salt).fields["messages"][-1]["content"] for salt in (1, 1, 2))
    assert one == same
    assert one[:40] != other[:40]
    assert len(one.split()) == pytest.approx(len(other.split()), rel=0.2)
