"""Two countries on real vLLM, asked with the OpenAI SDK."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall

from tests.running import MODEL, RunningHouse
from tests.schemas import check

pytestmark = [pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 120}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def asked(question: str) -> Any:
    return [{"role": "user", "content": question}]


def test_the_capital_of_france(running_house: RunningHouse) -> None:
    for country in running_house.countries.values():
        answer = country.sdk().chat.completions.with_raw_response.create(
            model=MODEL, messages=asked("What is the capital of France?"), temperature=0
        )
        check("chat_completion", json.loads(answer.text))
        assert "Paris" in (answer.parse().choices[0].message.content or "")
        assert answer.headers["x-domicile-country"] == country.code


def test_a_stream_is_the_plain_answer_in_pieces(running_house: RunningHouse) -> None:
    sdk = running_house.countries["ee"].sdk()
    whole = sdk.chat.completions.create(model=MODEL, messages=asked("Count to five."), temperature=0, max_tokens=24)
    chunks = list(
        sdk.chat.completions.create(
            model=MODEL,
            messages=asked("Count to five."),
            temperature=0,
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 5
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_forced_tool_call_has_arguments_of_its_schema(running_house: RunningHouse) -> None:
    answer = (
        running_house.countries["kr"]
        .sdk()
        .chat.completions.create(
            model=MODEL,
            messages=asked("What is the weather in Seoul?"),
            tools=[TOOL],
            tool_choice="required",
            temperature=0,
            max_tokens=80,
        )
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}


def test_a_json_schema_is_kept(running_house: RunningHouse) -> None:
    answer = (
        running_house.countries["ee"]
        .sdk()
        .chat.completions.create(
            model=MODEL,
            messages=asked("Describe a person."),
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "person", "schema": PERSON, "strict": True},
            },
            temperature=0,
            max_tokens=80,
        )
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"name", "age"}


def test_responses_plain_and_streamed(running_house: RunningHouse) -> None:
    sdk = running_house.countries["ee"].sdk()
    plain = sdk.responses.with_raw_response.create(model=MODEL, input="Say hi.", max_output_tokens=8, temperature=0)
    check("response", json.loads(plain.text))
    events = list(sdk.responses.create(model=MODEL, input="Say hi.", max_output_tokens=8, temperature=0, stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == plain.parse().output_text


def test_choices_seeds_stops_and_log_probabilities(running_house: RunningHouse) -> None:
    sdk = running_house.countries["ee"].sdk()
    options: dict[str, Any] = {
        "model": MODEL,
        "messages": asked("Name a colour."),
        "max_tokens": 12,
        "seed": 7,
        "n": 2,
        "logprobs": True,
    }
    first, second = (sdk.chat.completions.create(**options) for _ in range(2))
    assert [choice.message.content for choice in first.choices] == [c.message.content for c in second.choices]
    assert all(choice.logprobs and choice.logprobs.content for choice in first.choices)
    completion = sdk.completions.create(
        model=MODEL, prompt="1, 2, 3, 4, 5, 6,", max_tokens=30, temperature=0, stop=["9"]
    )
    assert "9" not in completion.choices[0].text
    assert completion.choices[0].finish_reason == "stop"


def test_two_countries_answer_at_once(running_house: RunningHouse) -> None:
    def ask(code: str) -> tuple[str, str]:
        country = running_house.countries[code]
        # All at once may be more than a small machine can promise to answer in time.
        raw = country.sdk(max_retries=5).chat.completions.with_raw_response.create(
            model=MODEL, messages=asked(f"Hello from {code}"), max_tokens=16
        )
        return code, raw.headers["x-domicile-country"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, ["ee", "kr"] * 8))
    assert len(answers) == 16
    assert all(asked_of == answered_by for asked_of, answered_by in answers)


def test_a_key_abroad_is_told_the_right_address(running_house: RunningHouse) -> None:
    home, abroad = running_house.countries["ee"], running_house.countries["kr"]
    lost = openai.OpenAI(base_url=abroad.base_url, api_key=home.key, max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refused:
        lost.chat.completions.create(model=MODEL, messages=asked("Hello"))
    assert refused.value.code == "incorrect_hostname"
    assert home.base_url in refused.value.message


def test_what_vllm_refuses_is_told_as_openai_does(running_house: RunningHouse) -> None:
    sdk = running_house.countries["ee"].sdk(default_headers={"accept-language": "en"})
    with pytest.raises(openai.BadRequestError) as long:
        sdk.chat.completions.create(model=MODEL, messages=asked("word " * 6000))
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.BadRequestError) as bias:
        sdk.chat.completions.create(model=MODEL, messages=asked("Hi"), logit_bias={"999999": 1}, stream=True)
    assert bias.value.param == "logit_bias"


def test_a_hostile_pattern_costs_the_neighbours_nothing(running_house: RunningHouse) -> None:
    """Row 33: what slips past the cheap checks is compiled apart, within bounds, while others stream on."""
    country = running_house.countries["ee"]
    pattern = "(" + "|".join(f"[a-z]{{1,60}}{number}" for number in range(90)) + "){1,4}"
    begun = time.monotonic()
    with country.http() as client:
        body = {"model": MODEL, "messages": asked("x"), "max_tokens": 4, "structured_outputs": {"regex": pattern}}
        status = client.post("/v1/chat/completions", json=body).status_code
    assert status in (200, 400)
    assert time.monotonic() - begun < 60
    alive = country.sdk().chat.completions.create(model=MODEL, messages=asked("Hi"), max_tokens=4)
    assert alive.choices[0].message.content


def test_organisations_do_not_share_a_prefix_cache(running_house: RunningHouse) -> None:
    """R9 on the real engine."""
    country = running_house.countries["ee"]
    key = running_house.domicile("org", "create", "ee", "neighbour", "--json")
    assert key.code == 0, key.err
    token = running_house.domicile("key", "create", "ee", "--org", "neighbour").out.strip()
    neighbour = openai.OpenAI(base_url=country.base_url, api_key=token, max_retries=0)
    question = asked("Tell me about rivers. " * 60)

    def cached(sdk: openai.OpenAI) -> int:
        usage = sdk.chat.completions.create(model=MODEL, messages=question, max_tokens=2).usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        return usage.prompt_tokens_details.cached_tokens or 0

    assert cached(country.sdk()) == 0
    assert cached(country.sdk()) > 100
    assert cached(neighbour) == 0
    assert cached(neighbour) > 100
