"""vLLM's answers and errors, mended and translated."""

from __future__ import annotations

from typing import Any

import pytest

from serving.errors import DomicileError, Failed, Reason, Refused
from serving.gateway.answers import complete, error_of, usage_of
from serving.types import Endpoint, Usage
from tests.schemas import check

CHAT, COMPLETIONS, RESPONSES = Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES


def chat(**message: object) -> dict[str, Any]:
    """A chat completion as vLLM writes it."""
    absent = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello.", **absent, **message},
        "logprobs": None,
        "finish_reason": "stop",
        "stop_reason": None,
        "token_ids": None,
    }
    usage = {
        "prompt_tokens": 5,
        "total_tokens": 7,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 4, "created_cache_tokens": None, "multimodal_tokens": None},
        "completion_tokens_details": None,
    }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "service_tier": None,
        "system_fingerprint": None,
        "usage": usage,
        "prompt_logprobs": None,
        "kv_transfer_params": None,
    }


def test_vllms_chat_completion_is_not_valid_and_the_mended_one_is() -> None:
    with pytest.raises(AssertionError, match="annotations"):
        check("chat_completion", chat())
    mended = complete(CHAT, chat(), {})
    check("chat_completion", mended)
    assert mended["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
    assert mended["choices"][0]["message"]["refusal"] is None


def test_what_is_right_is_kept() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = complete(CHAT, chat(tool_calls=[call], reasoning="Because."), {})["choices"][0]["message"]
    assert message["tool_calls"] == [call]
    assert message["reasoning"] == "Because."


def test_cached_tokens_are_filled_where_vllm_says_nothing() -> None:
    payload = chat()
    payload["usage"]["prompt_tokens_details"] = None
    assert complete(CHAT, payload, {})["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}


def test_an_aborted_answer_is_a_failure() -> None:
    payload = chat()
    payload["choices"][0]["finish_reason"] = "abort"
    with pytest.raises(Failed):
        complete(CHAT, payload, {})


def test_usage_is_read_from_any_endpoint() -> None:
    assert usage_of(chat()["usage"]) == Usage(5, 2, 4)
    usage = {"input_tokens": 5, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}
    assert usage_of(usage) == Usage(5, 2, 4)


def refusal(
    message: str,
    param: str | None = None,
    status: int = 400,
    endpoint: Endpoint = CHAT,
    fields: dict[str, object] | None = None,
) -> DomicileError:
    payload = {"error": {"message": message, "type": "BadRequestError", "param": param, "code": status}}
    return error_of(endpoint, payload, {"model": "m", **(fields or {})}, context_length=4096)


@pytest.mark.parametrize(
    ("message", "got"),
    [
        (
            "This model's maximum context length is 4096 tokens. However, your prompt contains at least 4097 input "
            "tokens, which exceeds this limit even without any output tokens. (parameter=input_tokens, value=4097)",
            4097,
        ),
        (
            "This model's maximum context length is 4096 tokens. However, your prompt contains 900000 characters (more "
            "than 65536 characters, which is the upper bound for 4096 input tokens).",
            4097,
        ),
        ("Input length (5000) exceeds model's maximum context length (4096).", 5000),
        ("The engine prompt length 4096 exceeds the max_model_len 4096. Please reduce prompt.", 4096),
        ("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", 5000),
        ("max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", 4097),
    ],
)
@pytest.mark.parametrize(("endpoint", "param"), [(CHAT, "messages"), (COMPLETIONS, "prompt"), (RESPONSES, "input")])
def test_a_prompt_beyond_the_context(message: str, got: int, endpoint: Endpoint, param: str) -> None:
    error = refusal(message, "input_tokens", endpoint=endpoint)
    assert (error.reason, error.param) == (Reason.CONTEXT_LENGTH_EXCEEDED, param)
    assert (error.facts["limit"], error.facts["got"]) == (4096, got)


@pytest.mark.parametrize(
    ("message", "param", "fields", "reason", "named"),
    [
        (
            "token_id(s) [9] in logit_bias contain out-of-vocab token ids. Vocabulary size: 9 "
            "(parameter=logit_bias, value=[9])",
            "logit_bias",
            {},
            Reason.INVALID_VALUE,
            "logit_bias",
        ),
        (
            "max_tokens=5000 cannot be greater than max_model_len=4096. Please request fewer output tokens.",
            "max_tokens",
            {},
            Reason.INTEGER_ABOVE_MAX_VALUE,
            "max_tokens",
        ),
        (
            "n must be at most 16384, got 20000. To increase this limit, …",
            None,
            {},
            Reason.INTEGER_ABOVE_MAX_VALUE,
            "n",
        ),
        ("n must be at least 1, got -2.", None, {}, Reason.INTEGER_BELOW_MIN_VALUE, "n"),
        ("top_p must be in (0, 1], got 2.0.", "top_p", {}, Reason.INVALID_VALUE, "top_p"),
        ("stop cannot contain an empty string.", None, {}, Reason.INVALID_VALUE, "stop"),
        (
            "Failed to transform regex into a grammar: unbalanced",
            None,
            {"structured_outputs": {"regex": "("}},
            Reason.INVALID_GRAMMAR,
            "structured_outputs",
        ),
        (
            "The provided JSON schema contains features not supported by xgrammar.",
            None,
            {"response_format": {"type": "json_schema"}},
            Reason.INVALID_GRAMMAR,
            "response_format",
        ),
        (
            "Invalid response_format structural_tag specification.",
            "response_format",
            {},
            Reason.INVALID_GRAMMAR,
            "response_format",
        ),
        ("When using `tool_choice`, `tools` must be set.", "tool_choice", {}, Reason.INVALID_TOOL, "tool_choice"),
        (
            "1 validation error:\n  {'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', 'input': 'x'}",
            "body.messages.0.content",
            {},
            Reason.ENGINE_REFUSED,
            "messages[0].content",
        ),
        ("Something new.", None, {}, Reason.ENGINE_REFUSED, None),
    ],
)
def test_vllms_refusals(
    message: str, param: str | None, fields: dict[str, object], reason: Reason, named: str | None
) -> None:
    error = refusal(message, param, fields=fields)
    assert isinstance(error, Refused)
    assert (error.reason, error.param) == (reason, named)
    assert "parameter=" not in str(error.facts["detail"])


def test_pydantics_words_are_all_that_is_left_of_its_report() -> None:
    report = "1 validation error:\n  {'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', 'input': 'x'}"
    assert refusal(report).facts["detail"] == "Field required"


def test_a_long_message_is_cut_and_never_in_the_exceptions_own_words() -> None:
    error = refusal("secret " * 1000)
    assert len(str(error.facts["detail"])) == 500
    assert "secret" not in str(error)


def test_what_is_not_there() -> None:
    assert refusal("The model `m` does not exist.", "model", 404).reason is Reason.MODEL_NOT_FOUND
    assert refusal("Response with id 'x' not found.", "response_id", 404).reason is Reason.RESPONSE_NOT_FOUND
    assert isinstance(refusal("Not Found", None, 404), Failed)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(503, Reason.SERVER_IS_OVERLOADED), (500, Reason.INTERNAL_ERROR), (501, Reason.INTERNAL_ERROR)],
)
def test_the_engines_own_failures_are_ours(status: int, reason: Reason) -> None:
    error = refusal("Traceback: secret", None, status)
    assert isinstance(error, Failed)
    assert error.reason is reason
    assert not error.facts
