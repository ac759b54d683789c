"""What every engine does, seen over HTTP as the gateway sees it.

The answers are held twice: as they come, for what they mean, and mended by the gateway, against OpenAI's schemas.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from serving.engine.port import METRICS, Engine, NoClaim
from serving.gateway.answers import complete, error_of, usage_of
from serving.gateway.sse import Events, Refusals, ResponseEvents, Tail, UsageNull
from serving.types import Endpoint
from tests.loopback import Event, events, streamed
from tests.schemas import check

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT, COMPLETIONS, RESPONSES = Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES
SCHEMAS = {CHAT: "chat_completion", COMPLETIONS: "completion", RESPONSES: "response"}
ASKED: dict[Endpoint, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Tell me of the sea."}], "max_tokens": 12},
    COMPLETIONS: {"prompt": "Once upon a time", "max_tokens": 12},
    RESPONSES: {"input": "Tell me of the sea.", "max_output_tokens": 16},
}
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Tallinn", "Seoul"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOLD = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:request_queue_time_seconds_sum",
    "vllm:request_queue_time_seconds_count",
    "domicile:outstanding_tokens",
}
LONG = " ".join(f"word{number}" for number in range(300))


def question(engine: Engine, endpoint: Endpoint, **fields: object) -> dict[str, Any]:
    return {"model": engine.facts().model, **ASKED[endpoint], "seed": 7, "temperature": 0.7, **fields}


async def ask(client: httpx.AsyncClient, endpoint: Endpoint, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    """The answer to ``body`` as it comes, which is fit for a client once it is mended."""
    response = await client.post(endpoint, json=body, headers=headers)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    check(SCHEMAS[endpoint], complete(endpoint, answer, body))
    return answer


async def ask_stream(client: httpx.AsyncClient, endpoint: Endpoint, body: dict[str, Any]) -> list[Event]:
    """The events in answer to ``body`` as they come, which are fit for a client once they are mended."""
    stream = await streamed(client, endpoint, body)
    tail = Tail(endpoint)
    mended = tail.feed(stream)
    assert tail.done
    if endpoint is RESPONSES:
        for event in events(ResponseEvents(body).feed(mended)):
            check("response_event", event.json())
            assert event.name == event.json()["type"]
    else:
        for event in events(Refusals().feed(UsageNull().feed(Events(mended))))[:-1]:
            check(f"{SCHEMAS[endpoint]}_chunk", event.json())
            assert "usage" in event.json()
    return events(stream)


def text_of(chunks: list[Event], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.json()["choices"] if choice["index"] == index]
    return "".join(choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_a_stream_begins_runs_and_ends_in_order(
    client: httpx.AsyncClient, engine: Engine, endpoint: Endpoint
) -> None:
    *chunks, usage, done = await ask_stream(
        client, endpoint, question(engine, endpoint, stream_options={"include_usage": True})
    )
    assert done.data == "[DONE]"
    assert usage.json()["choices"] == []
    if endpoint is CHAT:
        assert chunks[0].json()["choices"][0]["delta"]["role"] == "assistant"
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk.json()["choices"]]
    assert reasons[-1] in ("stop", "length")
    assert not any(reasons[:-1])
    assert len({chunk.json()["id"] for chunk in [*chunks, usage]}) == 1


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_a_stream_says_what_the_whole_answer_says(
    client: httpx.AsyncClient, engine: Engine, endpoint: Endpoint
) -> None:
    whole = (await ask(client, endpoint, question(engine, endpoint)))["choices"][0]
    chunks = (await ask_stream(client, endpoint, question(engine, endpoint)))[:-1]
    assert text_of(chunks) == (whole["text"] if endpoint is COMPLETIONS else whole["message"]["content"])


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_usage_adds_up(client: httpx.AsyncClient, engine: Engine, endpoint: Endpoint) -> None:
    usage = (await ask(client, endpoint, question(engine, endpoint)))["usage"]
    assert usage["prompt_tokens"] > 0
    assert 0 < usage["completion_tokens"] <= 12
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    streamed_usage = (
        await ask_stream(client, endpoint, question(engine, endpoint, stream_options={"include_usage": True}))
    )[-2].json()["usage"]
    assert streamed_usage["total_tokens"] == usage["total_tokens"]


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_n_gives_as_many_choices(client: httpx.AsyncClient, engine: Engine, endpoint: Endpoint) -> None:
    answer = await ask(client, endpoint, question(engine, endpoint, n=3))
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    chunks = (await ask_stream(client, endpoint, question(engine, endpoint, n=3)))[:-1]
    assert {choice["index"] for chunk in chunks for choice in chunk.json()["choices"]} == {0, 1, 2}


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_a_stop_string_ends_the_answer_and_is_not_shown(
    client: httpx.AsyncClient, engine: Engine, endpoint: Endpoint
) -> None:
    whole = text_of((await ask_stream(client, endpoint, question(engine, endpoint)))[:-1])
    stop = whole[len(whole) // 2 :][:4]
    stopped = (await ask(client, endpoint, question(engine, endpoint, stop=[stop])))["choices"][0]
    text = stopped["text"] if endpoint is COMPLETIONS else stopped["message"]["content"]
    assert stop not in text
    assert whole.startswith(text)
    assert stopped["finish_reason"] == "stop"
    assert text_of((await ask_stream(client, endpoint, question(engine, endpoint, stop=[stop])))[:-1]) == text


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_a_seed_repeats_itself(client: httpx.AsyncClient, engine: Engine, endpoint: Endpoint) -> None:
    once, again, other = [
        (await ask(client, endpoint, question(engine, endpoint, seed=seed, temperature=1)))["choices"][0]
        for seed in (11, 11, 12)
    ]
    assert once == again
    assert once != other


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
async def test_max_tokens_is_kept(client: httpx.AsyncClient, engine: Engine, endpoint: Endpoint) -> None:
    answer = await ask(client, endpoint, question(engine, endpoint, max_tokens=5, ignore_eos=True))
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_log_probabilities_of_a_chat(client: httpx.AsyncClient, engine: Engine) -> None:
    body = question(engine, CHAT, logprobs=True, top_logprobs=3)
    answer = await ask(client, CHAT, body)
    content = answer["choices"][0]["logprobs"]["content"]
    assert len(content) == answer["usage"]["completion_tokens"]
    assert all(token["logprob"] <= 0 and len(token["top_logprobs"]) == 3 for token in content)
    await ask_stream(client, CHAT, body)


async def test_log_probabilities_of_a_completion(client: httpx.AsyncClient, engine: Engine) -> None:
    body = question(engine, COMPLETIONS, logprobs=2)
    answer = await ask(client, COMPLETIONS, body)
    logprobs = answer["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == answer["usage"]["completion_tokens"]
    assert "".join(logprobs["tokens"]) == answer["choices"][0]["text"]
    await ask_stream(client, COMPLETIONS, body)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_forced_call_has_arguments_of_its_schema(
    client: httpx.AsyncClient, engine: Engine, choice: object
) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    body = question(engine, CHAT, tools=[tool], tool_choice=choice, max_tokens=120)
    call = (await ask(client, CHAT, body))["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["name"] == "weather"
    Draft202012Validator(WEATHER).validate(json.loads(call["function"]["arguments"]))
    chunks = (await ask_stream(client, CHAT, body))[:-1]
    deltas = [call for chunk in chunks for call in chunk.json()["choices"][0]["delta"].get("tool_calls", [])]
    assert deltas[0]["function"]["name"] == "weather"
    arguments = "".join(delta["function"].get("arguments") or "" for delta in deltas)
    Draft202012Validator(WEATHER).validate(json.loads(arguments))


async def test_an_answer_of_a_schema_validates_against_it(client: httpx.AsyncClient, engine: Engine) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER, "strict": True}}
    answer = await ask(client, CHAT, question(engine, CHAT, response_format=asked, max_tokens=400, temperature=0))
    Draft202012Validator(WEATHER).validate(json.loads(answer["choices"][0]["message"]["content"]))


async def test_a_begun_answer_is_continued(client: httpx.AsyncClient, engine: Engine) -> None:
    messages = [*ASKED[CHAT]["messages"], {"role": "assistant", "content": "The sea is"}]
    fields = {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    answer = await ask(client, CHAT, question(engine, CHAT, **fields))
    assert not answer["choices"][0]["message"]["content"].startswith("The sea is")


async def test_a_response_streams_its_events_in_order(client: httpx.AsyncClient, engine: Engine) -> None:
    stream = await ask_stream(client, RESPONSES, question(engine, RESPONSES))
    names = [event.name for event in stream]
    assert names[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert names[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert set(names[4:-4]) == {"response.output_text.delta"}
    assert [event.json()["sequence_number"] for event in stream] == list(range(len(stream)))
    text = "".join(event.json()["delta"] for event in stream if event.name == "response.output_text.delta")
    final = stream[-1].json()["response"]
    assert final["output"][0]["content"][0]["text"] == text
    assert final["usage"]["total_tokens"] == final["usage"]["input_tokens"] + final["usage"]["output_tokens"]


@pytest.mark.parametrize(
    "fields",
    [
        {"max_output_tokens": 4, "metadata": {"trip": "north"}, "user": "u-1", "safety_identifier": "s-1"},
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {"reasoning": {"effort": "low"}, "instructions": "Be brief."},
        {
            "text": {"format": {"type": "json_schema", "name": "weather", "schema": WEATHER}},
            "max_output_tokens": 120,
        },
        {
            "tools": [{"type": "function", "name": "weather", "parameters": WEATHER}],
            "tool_choice": {"type": "function", "name": "weather"},
            "max_output_tokens": 120,
        },
    ],
)
async def test_a_response_is_fit_for_a_client_however_it_is_asked(
    client: httpx.AsyncClient, engine: Engine, fields: dict[str, Any]
) -> None:
    body = question(engine, RESPONSES, **fields)
    await ask(client, RESPONSES, body)
    await ask_stream(client, RESPONSES, body)


async def test_r9_the_prefix_cache_is_kept_apart_between_organisations(
    client: httpx.AsyncClient, engine: Engine
) -> None:
    body = question(engine, CHAT, messages=[{"role": "user", "content": LONG}])

    async def cached(organisation: str) -> int:
        answer = await ask(client, CHAT, body, **{"x-organisation": organisation})
        tokens: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        return tokens

    assert await cached("north") == 0
    assert await cached("north") > 0
    assert await cached("south") == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("endpoint", list(Endpoint))
async def test_what_a_request_cost_is_what_its_answer_said(
    client: httpx.AsyncClient, engine: Engine, endpoint: Endpoint, stream: bool
) -> None:
    name = f"req_{endpoint.name}_{stream}"
    assert engine.spent(name) is None
    body = question(engine, endpoint, stream=stream)
    expected = usage_of((await ask(client, endpoint, question(engine, endpoint)))["usage"])
    response = await client.post(endpoint, json=body, headers={"x-request-id": f"{name}.1"})
    assert response.status_code == 200
    spent = engine.spent(f"{name}.2")
    assert spent is not None
    assert (spent.prompt_tokens, spent.completion_tokens) == (expected.prompt_tokens, expected.completion_tokens)
    if not stream:
        assert spent == usage_of(response.json()["usage"])


@pytest.mark.parametrize("fields", [{"prompt": ["Once upon a time", "The sea"]}, {"n": 2}, {"n": 3, "seed": 7}])
async def test_so_is_that_of_several_prompts_and_choices(
    client: httpx.AsyncClient, engine: Engine, fields: dict[str, Any]
) -> None:
    name = f"req_{len(fields)}_{next(iter(fields))}"
    body = question(engine, COMPLETIONS, **fields)
    response = await client.post(COMPLETIONS, json=body, headers={"x-request-id": name})
    usage, spent = usage_of(response.json()["usage"]), engine.spent(name)
    assert spent is not None
    assert (spent.prompt_tokens, spent.completion_tokens) == (usage.prompt_tokens, usage.completion_tokens)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("choices", [1, 2])
async def test_and_that_of_an_answer_whose_client_left(
    client: httpx.AsyncClient, engine: Engine, stream: bool, choices: int
) -> None:
    name = f"req_left_{stream}_{choices}"
    most = engine.facts().context_length // 2
    body = question(engine, CHAT, max_tokens=most, ignore_eos=True, stream=stream, n=choices)
    asking = asyncio.create_task(client.post(CHAT, json=body, headers={"x-request-id": name}))
    async with asyncio.timeout(20):
        while (spent := engine.spent(name)) is None or spent.completion_tokens < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    asking.cancel()
    async with asyncio.timeout(3):
        while engine.load().running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    after = engine.spent(name)
    assert after is not None
    assert after.prompt_tokens == spent.prompt_tokens > 0
    assert 3 <= after.completion_tokens < most * choices


@pytest.mark.parametrize("endpoint", list(Endpoint))
async def test_nothing_is_generated_without_a_claim(engine: Engine, endpoint: Endpoint) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(engine.app), base_url="http://engine") as unvouched:
        with pytest.raises(NoClaim):
            await unvouched.post(endpoint, json=question(engine, endpoint))
        assert (await unvouched.get("/health")).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_aborts_its_generation(
    client: httpx.AsyncClient, engine: Engine, stream: bool
) -> None:
    body = question(engine, CHAT, max_tokens=engine.facts().context_length // 2, ignore_eos=True, stream=stream)
    asking = asyncio.create_task(client.post(CHAT, json=body))
    async with asyncio.timeout(10):
        while not engine.load().running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    asking.cancel()
    async with asyncio.timeout(3):
        while engine.load().running or engine.load().outstanding_tokens:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("endpoint", list(Endpoint))
async def test_a_prompt_beyond_the_context_is_refused(
    client: httpx.AsyncClient, engine: Engine, endpoint: Endpoint
) -> None:
    context = engine.facts().context_length
    long = "word " * (context + 10)
    prompts: dict[Endpoint, dict[str, Any]] = {
        CHAT: {"messages": [{"role": "user", "content": long}]},
        COMPLETIONS: {"prompt": long},
        RESPONSES: {"input": long},
    }
    prompt = prompts[endpoint]
    body = question(engine, endpoint, **prompt)
    response = await client.post(endpoint, json=body)
    assert response.status_code == 400
    error = error_of(endpoint, response.json(), body, context_length=context)
    assert (error.reason.wire.code, error.param) == ("context_length_exceeded", next(iter(prompt)))


@pytest.mark.parametrize("endpoint", list(Endpoint))
async def test_an_unknown_model_is_not_found(client: httpx.AsyncClient, engine: Engine, endpoint: Endpoint) -> None:
    body = question(engine, endpoint, model="no-such-model")
    response = await client.post(endpoint, json=body)
    assert response.status_code == 404
    error = error_of(endpoint, response.json(), body, context_length=engine.facts().context_length)
    assert (error.reason.wire.code, error.param) == ("model_not_found", "model")


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_bias_beyond_the_vocabulary_is_refused(
    client: httpx.AsyncClient, engine: Engine, endpoint: Endpoint, stream: bool
) -> None:
    facts = engine.facts()
    body = question(engine, endpoint, logit_bias={str(facts.vocab_size): 1}, stream=stream)
    response = await client.post(endpoint, json=body)
    if stream:
        tail = Tail(endpoint)
        assert tail.feed(response.content) == b""
        payload = tail.error
    else:
        payload = response.json()
    assert payload is not None
    error = error_of(endpoint, payload, body, context_length=facts.context_length)
    assert (error.reason.wire.code, error.param) == ("invalid_value", "logit_bias")


async def test_the_models_path_lists_the_model(client: httpx.AsyncClient, engine: Engine) -> None:
    listed = (await client.get("/v1/models")).json()
    assert [card["id"] for card in listed["data"]] == [engine.facts().model]


async def test_the_tokenizer_counts(client: httpx.AsyncClient, engine: Engine) -> None:
    body = {"model": engine.facts().model, "prompt": "Once upon a time"}
    counted = (await client.post("/tokenize", json=body)).json()
    assert counted["count"] == len(counted["tokens"]) >= 4


async def test_an_idle_engine_carries_nothing(client: httpx.AsyncClient, engine: Engine) -> None:
    await ask(client, CHAT, question(engine, CHAT))
    load = engine.load()
    assert (load.running, load.waiting, load.outstanding_tokens) == (0, 0, 0)
    await engine.check()


async def metrics(client: httpx.AsyncClient) -> dict[str, float]:
    """What the engine tells of itself, by name, once it is Prometheus' text indeed."""
    response = await client.get(METRICS)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=1.0.0")
    samples = [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]
    told = [sample for sample in samples if sample.name in TOLD]
    assert {sample.name for sample in told} == TOLD
    assert {label for sample in told for label in sample.labels} == {"model_name", "engine"}
    assert len(told) == len(TOLD)
    return {sample.name: sample.value for sample in told}


async def eventually(client: httpx.AsyncClient, wanted: Callable[[dict[str, float]], bool]) -> None:
    """Wait for the metrics to be so: vLLM counts a step after its tokens are out."""
    async with asyncio.timeout(20):
        while not wanted(await metrics(client)):  # noqa: ASYNC110 - an engine has no event for its counters
            await asyncio.sleep(0.02)


async def test_the_metrics_count_what_was_done(client: httpx.AsyncClient, engine: Engine) -> None:
    before = await metrics(client)
    usage = (await ask(client, CHAT, question(engine, CHAT)))["usage"]

    def counted(now: dict[str, float]) -> bool:
        grown = {name: now[name] - before[name] for name in TOLD}
        return (
            grown["vllm:prompt_tokens_total"] == usage["prompt_tokens"]
            and grown["vllm:generation_tokens_total"] == usage["completion_tokens"]
            and grown["vllm:request_queue_time_seconds_count"] == 1
            and grown["vllm:request_queue_time_seconds_sum"] >= 0
            and now["vllm:num_requests_running"] == now["vllm:num_requests_waiting"] == 0
            and now["domicile:outstanding_tokens"] == 0
        )

    await eventually(client, counted)


async def test_the_metrics_show_what_is_being_done(client: httpx.AsyncClient, engine: Engine) -> None:
    body = question(engine, CHAT, max_tokens=engine.facts().context_length // 2, ignore_eos=True, stream=True)
    async with client.stream("POST", CHAT, json=body) as response:
        # Kept by name: once it is collected, the client has left.
        chunks = response.aiter_raw()
        await anext(chunks)
        await eventually(
            client,
            lambda now: (
                now["vllm:num_requests_running"] == 1
                and 0 < now["vllm:kv_cache_usage_perc"] <= 1
                and now["domicile:outstanding_tokens"] > 0
            ),
        )
    await eventually(client, lambda now: now["vllm:num_requests_running"] == 0)


async def test_r7_the_metrics_repeat_nothing_of_a_caller(client: httpx.AsyncClient, engine: Engine) -> None:
    words = question(engine, CHAT, messages=[{"role": "user", "content": "zyzzyva-word"}], user="zyzzyva-user")
    headers = {"x-organisation": "zyzzyva-organisation", "x-request-id": "zyzzyva-request"}
    assert (await client.post(CHAT, json=words, headers=headers)).status_code == 200
    await client.post("/zyzzyva-path", json={}, headers=headers)
    told = (await client.get(METRICS, headers=headers)).text
    assert "zyzzyva" not in told
