"""Have a stream tell its usage at its end, whether or not its client asked: the receipt names it."""

from __future__ import annotations

import json
from dataclasses import replace

from serving.types import Endpoint, Prompt

_ASKS = b'"stream_options":{"include_usage":true},'


def accounted(prompt: Prompt) -> Prompt:
    """The prompt as its replica gets it.

    A few bytes go before the client's own, which stay as they came. Where a client wrote options, that is not possible.
    """
    if not prompt.stream or prompt.include_usage or prompt.endpoint is Endpoint.RESPONSES:
        return prompt
    fields = {**prompt.fields, "stream_options": {**_options(prompt), "include_usage": True}}
    if "stream_options" in prompt.fields:
        body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    else:
        begin = prompt.body.index(b"{") + 1
        body = prompt.body[:begin] + _ASKS + prompt.body[begin:]
    return replace(prompt, include_usage=True, body=body, fields=fields)


def _options(prompt: Prompt) -> dict[str, object]:
    given = prompt.fields.get("stream_options")
    return given if isinstance(given, dict) else {}
