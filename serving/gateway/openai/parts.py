"""Content of messages and items: a string, or an array of typed parts.

Each part is held to exactly the fields of its type. vLLM looks at a part's *other* keys when it finds a ``uuid`` or no
``type``, and would follow an ``image_url`` that hides beside a harmless text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from serving.errors import Reason, Refused
from serving.gateway.openai.checks import (
    Check,
    Table,
    check_array,
    check_members,
    one_of,
    string,
    unsupported,
    wrong_type,
    wrong_value,
)
from serving.gateway.openai.images import check_image
from serving.gateway.openai.limits import Limits

MAX_PARTS = 1024
_TEXTS = ("text", "input_text", "output_text")

Part = Callable[[dict[str, object], str, Limits], int]
"""Checks one part and returns how many pixels it holds."""
Parts = Mapping[str, Part]

_BREAKPOINT: Table = {"mode": one_of("explicit"), "ttl": one_of("30m", "12h")}
_DETAIL = one_of("auto", "low", "high", "original")


def _hint(value: object, param: str, limits: Limits) -> None:
    check_members(value, param, _BREAKPOINT, limits, "mode")


def _anything(value: object, param: str, limits: Limits) -> None:
    """Left to whoever reads the part as a whole."""


def _text_part(field: str, **more: Check) -> Part:
    table: Table = {"type": _anything, field: string(empty=True), "prompt_cache_breakpoint": _hint, **more}

    def check(part: dict[str, object], param: str, limits: Limits) -> int:
        check_members(part, param, table, limits, field)
        return 0

    return check


_IMAGE_URL: Table = {"url": _anything, "detail": _DETAIL}
_IMAGE_PART: Table = {"type": _anything, "image_url": _anything, "prompt_cache_breakpoint": _hint}


def _image_url(part: dict[str, object], param: str, limits: Limits) -> int:
    check_members(part, param, _IMAGE_PART, limits, "image_url")
    image = check_members(part["image_url"], f"{param}.image_url", _IMAGE_URL, limits, "url")
    return check_image(image["url"], f"{param}.image_url.url", limits)


_INPUT_IMAGE: Table = {
    "type": _anything,
    "image_url": _anything,
    "detail": _DETAIL,
    "file_id": unsupported,
    "prompt_cache_breakpoint": _hint,
}


def _input_image(part: dict[str, object], param: str, limits: Limits) -> int:
    check_members(part, param, _INPUT_IMAGE, limits, "image_url")
    return check_image(part["image_url"], f"{param}.image_url", limits)


def _not_served(part: dict[str, object], param: str, limits: Limits) -> int:
    """Parts that OpenAI knows and replicas do not take: sound, files, and refusals among a response's items."""
    raise Refused(Reason.UNSUPPORTED_PARAMETER, param=f"{param}.type")


TEXT: Parts = {"text": _text_part("text")}
ASSISTANT: Parts = {**TEXT, "refusal": _text_part("refusal")}
USER: Parts = {**TEXT, "image_url": _image_url, "input_audio": _not_served, "file": _not_served}

INPUT: Parts = {
    "input_text": _text_part("text"),
    "input_image": _input_image,
    "input_file": _not_served,
    "input_audio": _not_served,
}
OUTPUT: Parts = {
    "output_text": _text_part("text", annotations=_anything, logprobs=_anything),
    "refusal": _not_served,
}


def check_content(value: object, param: str, parts: Parts, limits: Limits) -> int:
    """Check a message's content and return how many pixels its images hold."""
    if type(value) is str:
        return 0
    if not isinstance(value, list):
        raise wrong_type(value, param, "string | array")
    pixels = 0
    for index, part in enumerate(check_array(value, param, MAX_PARTS)):
        pixels += _check_part(part, f"{param}[{index}]", parts, limits)
    return pixels


def _check_part(part: object, param: str, parts: Parts, limits: Limits) -> int:
    if not isinstance(part, dict):
        raise wrong_type(part, param, "object")
    if "type" not in part:
        raise Refused(Reason.MISSING_REQUIRED_PARAMETER, param=f"{param}.type")
    kind_of_part = part["type"]
    check = parts.get(kind_of_part) if isinstance(kind_of_part, str) else None
    if check is None:
        raise wrong_value(f"{param}.type", " | ".join(parts))
    # Nearly all parts are of this form, and agents send many.
    if len(part) == 2 and kind_of_part in _TEXTS and type(part.get("text")) is str:
        return 0
    return check(part, param, limits)
