"""The fields about how tokens are drawn and when they stop, which the endpoints share.

Bounds are OpenAI's where OpenAI has the field, else what vLLM takes without harm to a neighbour.
"""

from __future__ import annotations

import re

from serving.errors import Reason, Refused
from serving.gateway.openai.checks import (
    Check,
    Table,
    array,
    boolean,
    check_array,
    check_integer,
    check_string,
    integer,
    nullable,
    number,
    string,
    wrong_type,
    wrong_value,
)
from serving.gateway.openai.limits import Limits
from serving.gateway.openai.strict_json import INT64

MAX_TOKEN_ID = (1 << 31) - 1
MAX_LOGIT_BIAS = 300
MAX_STOPS = 4
MAX_STOP = 256
MAX_STOP_TOKENS = 64
MAX_BAD_WORDS = 128
SMALLEST_TOP_P = 1e-6
"""vLLM takes ``top_p`` above zero only."""

_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")
_bias = number(-100, 100)


def tokens(value: object, param: str, limits: Limits) -> None:
    """How many tokens to write at most."""
    check_integer(value, param, 1, limits.context_length)


def min_tokens(value: object, param: str, limits: Limits) -> None:
    check_integer(value, param, 0, limits.context_length)


def choices(value: object, param: str, limits: Limits) -> None:
    check_integer(value, param, 1, limits.max_choices)


def logit_bias(value: object, param: str, limits: Limits) -> None:
    """A map from token ids to biases; whatever is wrong in it is reported under the field itself."""
    if not isinstance(value, dict):
        raise wrong_type(value, param, "object")
    if len(value) > MAX_LOGIT_BIAS:
        raise Refused(Reason.ARRAY_TOO_LONG, param=param, limit=MAX_LOGIT_BIAS, got=len(value))
    for token, bias in value.items():
        if not _TOKEN_ID.fullmatch(token) or int(token) > MAX_TOKEN_ID:
            raise wrong_value(param, f"0 <= token id <= {MAX_TOKEN_ID}")
        _bias(bias, param, limits)


def stop(value: object, param: str, limits: Limits) -> None:
    """One to four strings; whatever is wrong with one is reported under the field itself."""
    for text in [value] if isinstance(value, str) else _texts(value, param):
        check_string(text, param, MAX_STOP)


def _texts(value: object, param: str) -> list[object]:
    if not isinstance(value, list):
        raise wrong_type(value, param, "string | array")
    return check_array(value, param, MAX_STOPS)


def check_min_tokens(fields: dict[str, object], *maxima: str) -> None:
    least = fields.get("min_tokens")
    for name in maxima:
        most = fields.get(name)
        if isinstance(least, int) and isinstance(most, int) and least > most:
            raise Refused(Reason.INTEGER_ABOVE_MAX_VALUE, param="min_tokens", limit=most, got=least)


token_id: Check = integer(0, MAX_TOKEN_ID)
top_logprobs: Check = nullable(integer(0, 20))

COMMON: Table = {
    "temperature": nullable(number(0, 2)),
    "top_p": nullable(number(SMALLEST_TOP_P, 1)),
    "top_k": nullable(integer(-1, MAX_TOKEN_ID)),
    "min_p": nullable(number(0, 1)),
    "repetition_penalty": nullable(number(0.01, 100)),
    "stop_token_ids": nullable(array(token_id, MAX_STOP_TOKENS)),
    "ignore_eos": boolean,
    "include_stop_str_in_output": boolean,
    "skip_special_tokens": boolean,
}
"""What all three endpoints of vLLM read."""

CLASSIC: Table = {
    **COMMON,
    "frequency_penalty": nullable(number(-2, 2)),
    "presence_penalty": nullable(number(-2, 2)),
    "logit_bias": nullable(logit_bias),
    "seed": nullable(integer(INT64.start, INT64.stop - 1)),
    "stop": nullable(stop),
    "min_tokens": min_tokens,
    "bad_words": array(string(MAX_STOP), MAX_BAD_WORDS),
}
"""What chat completions and completions have besides."""
