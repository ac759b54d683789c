"""POST /v1/completions: every field there is, and what it may hold."""

from __future__ import annotations

from serving.errors import Reason, Refused
from serving.gateway.openai import sampling, structured
from serving.gateway.openai.checks import (
    Shape,
    Table,
    boolean,
    check_array,
    check_integer,
    check_string,
    integer,
    nullable,
    string,
    unsupported,
    wrong_type,
)
from serving.gateway.openai.limits import Limits
from serving.gateway.openai.streams import STREAM, check_stream_options, stream_options


def prompt(value: object, param: str, limits: Limits) -> None:
    """A text, texts, token ids, or arrays of token ids."""
    if type(value) is str:
        check_string(value, param)
        return
    if not isinstance(value, list):
        raise wrong_type(value, param, "string | array")
    if value and type(value[0]) is int:
        _token_ids(value, param, limits)
        return
    for index, item in enumerate(check_array(value, param, limits.max_prompts)):
        path = f"{param}[{index}]"
        if isinstance(value[0], list):
            _token_ids(item, path, limits)
        else:
            check_string(item, path)


def _token_ids(value: object, param: str, limits: Limits) -> None:
    ids = check_array(value, param)
    if len(ids) > limits.context_length:
        raise Refused(Reason.CONTEXT_LENGTH_EXCEEDED, param="prompt", limit=limits.context_length, got=len(ids))
    for index, item in enumerate(ids):
        if type(item) is not int or not 0 <= item <= sampling.MAX_TOKEN_ID:
            check_integer(item, f"{param}[{index}]", 0, sampling.MAX_TOKEN_ID)


FIELDS: Table = {
    **sampling.CLASSIC,
    "model": string(128),
    "prompt": prompt,
    "stream": STREAM,
    "stream_options": stream_options,
    "n": sampling.choices,
    "best_of": nullable(sampling.choices),
    "max_tokens": nullable(sampling.tokens),
    "echo": nullable(boolean),
    "logprobs": nullable(integer(0, 5)),
    "structured_outputs": nullable(structured.structured_outputs),
    "user": nullable(string(512, empty=True)),
    "suffix": unsupported,
}


def _check_together(fields: dict[str, object], limits: Limits) -> None:
    check_stream_options(fields)
    sampling.check_min_tokens(fields, "max_tokens")
    choices = fields.get("n", 1)
    if isinstance(choices, int):
        _check_best_of(fields.get("best_of"), choices)
        _check_sequences(fields["prompt"], choices, limits)
    # Together they ask for the log probabilities of the prompt, which no caller gets.
    if fields.get("echo") and fields.get("logprobs") is not None:
        raise Refused(Reason.UNSUPPORTED_PARAMETER, param="echo")


def _check_best_of(best_of: object, choices: int) -> None:
    """vLLM draws as many as it returns, so any other number is a promise it would break."""
    if not isinstance(best_of, int) or best_of == choices:
        return
    if best_of < choices:
        raise Refused(Reason.INTEGER_BELOW_MIN_VALUE, param="best_of", limit=choices, got=best_of)
    raise Refused(Reason.INTEGER_ABOVE_MAX_VALUE, param="best_of", limit=choices, got=best_of)


def _check_sequences(texts: object, choices: int, limits: Limits) -> None:
    if not isinstance(texts, list) or type(texts[0]) is int:
        return
    most = limits.max_sequences // choices
    if len(texts) > most:
        raise Refused(Reason.ARRAY_TOO_LONG, param="prompt", limit=most, got=len(texts))


SHAPE = Shape(FIELDS, ("model", "prompt"), _check_together, prompt="prompt")
