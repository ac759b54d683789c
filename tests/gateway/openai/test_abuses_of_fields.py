"""The abuses that single fields can hold, each under its number in docs."""

from __future__ import annotations

from typing import Any

import pytest

from serving.errors import Reason
from serving.gateway.openai import Limits
from serving.types import Endpoint
from tests.gateway.openai.bodies import (
    BASES,
    CHAT,
    COMPLETION,
    EVERYWHERE,
    accept,
    asked,
    chat,
    completion,
    image,
    refusal,
    response,
)


class TestRow25Choices:
    @pytest.mark.parametrize("ask", [chat, completion])
    def test_refused(self, ask: Any) -> None:
        assert ask(n=10**9) == (Reason.INTEGER_ABOVE_MAX_VALUE, "n")
        assert ask(n=0) == (Reason.INTEGER_BELOW_MIN_VALUE, "n")
        assert ask(n=True) == (Reason.INVALID_TYPE, "n")
        assert ask(n=1.0) == (Reason.INVALID_TYPE, "n")

    def test_limit(self) -> None:
        accept(Endpoint.CHAT, CHAT | {"n": 8})
        assert refusal(Endpoint.CHAT, CHAT | {"n": 9}).facts == {"limit": 8, "got": 9}

    def test_prompts_times_choices(self) -> None:
        assert completion(prompt=["a"] * 17, n=8) == (Reason.ARRAY_TOO_LONG, "prompt")
        accept(Endpoint.COMPLETIONS, COMPLETION | {"prompt": ["a"] * 16, "n": 8})


class TestRow26BestOf:
    def test_refused(self) -> None:
        assert completion(best_of=10**9) == (Reason.INTEGER_ABOVE_MAX_VALUE, "best_of")
        assert completion(best_of=1, n=2) == (Reason.INTEGER_BELOW_MIN_VALUE, "best_of")
        assert completion(best_of=4, n=2) == (Reason.INTEGER_ABOVE_MAX_VALUE, "best_of")
        assert chat(best_of=1) == (Reason.UNKNOWN_PARAMETER, "best_of")

    def test_as_many_as_returned_pass(self) -> None:
        accept(Endpoint.COMPLETIONS, COMPLETION | {"best_of": 2, "n": 2})


class TestRow27MaxTokens:
    @pytest.mark.parametrize(
        ("ask", "name"),
        [
            (chat, "max_tokens"),
            (chat, "max_completion_tokens"),
            (completion, "max_tokens"),
            (response, "max_output_tokens"),
        ],
    )
    def test_refused(self, ask: Any, name: str) -> None:
        assert ask(**{name: 0}) == (Reason.INTEGER_BELOW_MIN_VALUE, name)
        assert ask(**{name: -1}) == (Reason.INTEGER_BELOW_MIN_VALUE, name)
        assert ask(**{name: 10**12}) == (Reason.INTEGER_ABOVE_MAX_VALUE, name)
        assert ask(**{name: 8193}) == (Reason.INTEGER_ABOVE_MAX_VALUE, name)
        assert ask(**{name: "5"}) == (Reason.INVALID_TYPE, name)

    def test_min_above_max(self) -> None:
        assert chat(min_tokens=5, max_tokens=4) == (Reason.INTEGER_ABOVE_MAX_VALUE, "min_tokens")


class TestRow28Context:
    """What cannot fit however it is tokenized; the replica counts the rest."""

    def test_refused(self) -> None:
        small = Limits(context_length=16, country="ee")
        for endpoint, name in zip(Endpoint, ("messages", "prompt", "input"), strict=True):
            value = asked("a" * 10_000) if endpoint is Endpoint.CHAT else "a" * 10_000
            refused = refusal(endpoint, BASES[endpoint] | {name: value}, small)
            assert (refused.reason, refused.param) == (Reason.CONTEXT_LENGTH_EXCEEDED, name)

    def test_token_ids_are_counted(self) -> None:
        assert completion(prompt=[1] * 8193) == (Reason.CONTEXT_LENGTH_EXCEEDED, "prompt")

    def test_pictures_are_no_text(self) -> None:
        body = CHAT | {"messages": asked([{"type": "image_url", "image_url": {"url": image(2000, 2000)}}])}
        accept(Endpoint.CHAT, body, Limits(context_length=2, country="ee"))


class TestRow29Logprobs:
    def test_refused(self) -> None:
        assert chat(logprobs=True, top_logprobs=21) == (Reason.INTEGER_ABOVE_MAX_VALUE, "top_logprobs")
        assert chat(logprobs=True, top_logprobs=-1) == (Reason.INTEGER_BELOW_MIN_VALUE, "top_logprobs")
        assert chat(top_logprobs=1) == (Reason.INVALID_VALUE, "top_logprobs")
        assert response(top_logprobs=21) == (Reason.INTEGER_ABOVE_MAX_VALUE, "top_logprobs")
        assert completion(logprobs=6) == (Reason.INTEGER_ABOVE_MAX_VALUE, "logprobs")

    @pytest.mark.parametrize("ask", [chat, completion, response])
    @pytest.mark.parametrize("value", [None, 0, 1, -1])
    def test_of_the_prompt(self, ask: Any, value: object) -> None:
        assert ask(prompt_logprobs=value) == (Reason.UNKNOWN_PARAMETER, "prompt_logprobs")

    def test_of_the_prompt_by_the_back_door(self) -> None:
        assert completion(echo=True, logprobs=1) == (Reason.UNSUPPORTED_PARAMETER, "echo")


class TestRow30LogitBias:
    @pytest.mark.parametrize(
        "value",
        [
            {str(i): 1 for i in range(301)},
            {"-1": 1},
            {str(2**31): 1},
            {"9" * 5000: 1},
            {"01": 1},
            {"٣": 1},
            {" 1": 1},
            {"x": 1},
            {"1": 101},
            {"1": -100.5},
            {"1": True},
            {"1": "1"},
            [1],
            5,
        ],
    )
    @pytest.mark.parametrize("ask", [chat, completion])
    def test_refused(self, ask: Any, value: object) -> None:
        assert ask(logit_bias=value)[1] == "logit_bias"


class TestRow31Stop:
    @pytest.mark.parametrize("value", [["a"] * 5, "", [""], [], "x" * 2**20, ["x" * 257], [1], [None], 5, {}])
    @pytest.mark.parametrize("ask", [chat, completion])
    def test_refused(self, ask: Any, value: object) -> None:
        assert ask(stop=value)[1] == "stop"


class TestRow32Ranges:
    @pytest.mark.parametrize(
        ("name", "value", "reason"),
        [
            ("temperature", 3, Reason.DECIMAL_ABOVE_MAX_VALUE),
            ("temperature", -0.1, Reason.DECIMAL_BELOW_MIN_VALUE),
            ("temperature", True, Reason.INVALID_TYPE),
            ("temperature", "1", Reason.INVALID_TYPE),
            ("top_p", -1, Reason.DECIMAL_BELOW_MIN_VALUE),
            ("top_p", 0, Reason.DECIMAL_BELOW_MIN_VALUE),
            ("top_p", 1.1, Reason.DECIMAL_ABOVE_MAX_VALUE),
            ("min_p", 2, Reason.DECIMAL_ABOVE_MAX_VALUE),
            ("top_k", -2, Reason.INTEGER_BELOW_MIN_VALUE),
            ("repetition_penalty", 0, Reason.DECIMAL_BELOW_MIN_VALUE),
        ],
    )
    @pytest.mark.parametrize("ask", [chat, completion, response])
    def test_refused(self, ask: Any, name: str, value: object, reason: Reason) -> None:
        assert ask(**{name: value}) == (reason, name)

    @pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
    def test_penalties(self, name: str) -> None:
        assert chat(**{name: 2.1}) == (Reason.DECIMAL_ABOVE_MAX_VALUE, name)
        assert response(**{name: 1}) == (Reason.UNKNOWN_PARAMETER, name)

    def test_models(self) -> None:
        assert chat(model="x" * 129) == (Reason.STRING_TOO_LONG, "model")
        assert chat(model="") == (Reason.EMPTY_STRING, "model")
        assert chat(model=5) == (Reason.INVALID_TYPE, "model")
        refused = refusal(Endpoint.CHAT, {"messages": []})
        assert (refused.reason, refused.param) == (Reason.MISSING_REQUIRED_PARAMETER, "model")


class TestRow36Unknown:
    @pytest.mark.parametrize(
        "name",
        [
            *("chat_template", "chat_template_kwargs", "prompt_embeds", "media_io_kwargs", "mm_processor_kwargs"),
            *("cache_salt", "kv_transfer_params", "ec_transfer_params", "vllm_xargs", "priority", "request_id"),
            *(
                "session_id",
                "documents",
                "use_beam_search",
                "allowed_token_ids",
                "logprob_token_ids",
                "stream_interval",
            ),
            *("truncate_prompt_tokens", "thinking_token_budget", "include_reasoning", "previous_input_messages"),
            *("enable_response_messages", "return_token_ids", "watermarking", "add_special_tokens", "guided_json"),
            *("Model", "model ", "größe", ""),
        ],
    )
    @EVERYWHERE
    def test_refused_by_name(self, endpoint: Endpoint, name: str) -> None:
        for value in (None, "x", {"a": 1}):
            refused = refusal(endpoint, BASES[endpoint] | {name: value})
            assert (refused.reason, refused.param) == (Reason.UNKNOWN_PARAMETER, name)

    def test_names_are_cut_and_printable(self) -> None:
        reason, param = chat(**{"a\x1b[31m\n" + "x" * 500: 1})
        assert reason is Reason.UNKNOWN_PARAMETER
        assert param is not None
        assert param.isprintable()
        assert len(param) == 64

    @pytest.mark.parametrize(
        ("message", "param"),
        [
            ({"role": "user", "content": "x", "task": "y"}, "messages[0].task"),
            ({"role": "developer", "content": "x", "tools": []}, "messages[0].tools"),
            ({"role": "user", "content": [{"type": "text", "text": "x", "uuid": "u"}]}, "messages[0].content[0].uuid"),
        ],
    )
    def test_inside_messages(self, message: object, param: str) -> None:
        assert chat(messages=[message]) == (Reason.UNKNOWN_PARAMETER, param)

    def test_stream_options(self) -> None:
        assert chat(stream=True, stream_options={"continuous_usage_stats": True}) == (
            Reason.UNKNOWN_PARAMETER,
            "stream_options.continuous_usage_stats",
        )
        assert chat(stream_options={"include_usage": True}) == (Reason.INVALID_VALUE, "stream_options")
        assert response(stream=True, stream_options={"include_usage": True})[0] is Reason.UNKNOWN_PARAMETER

    @pytest.mark.parametrize("name", ["audio", "functions", "function_call", "moderation", "web_search_options"])
    def test_known_to_openai_alone(self, name: str) -> None:
        assert chat(**{name: {}}) == (Reason.UNSUPPORTED_PARAMETER, name)
        accept(Endpoint.CHAT, CHAT | {name: None})

    @pytest.mark.parametrize("name", ["conversation", "prompt", "context_management", "background_options", "image"])
    def test_known_to_openai_alone_in_responses(self, name: str) -> None:
        assert response(**{name: {}}) == (Reason.UNSUPPORTED_PARAMETER, name)

    def test_what_is_not_stored(self) -> None:
        assert response(previous_response_id="resp_1") == (Reason.RESPONSE_NOT_FOUND, "previous_response_id")
        assert response(background=True) == (Reason.UNSUPPORTED_PARAMETER, "background")
        assert response(input=[{"type": "item_reference", "id": "x"}]) == (Reason.RESPONSE_NOT_FOUND, "input[0]")
        assert completion(suffix="x") == (Reason.UNSUPPORTED_PARAMETER, "suffix")
