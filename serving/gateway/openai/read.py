"""A request's body, from bytes to a :class:`Prompt`, or a refusal that says which field is wrong and why.

The bytes themselves go on to the replica, so what is accepted here must mean the same there: a parser stricter
than the replica's, one table an endpoint, and no name that the table does not know.
"""

from __future__ import annotations

from collections.abc import Mapping

from serving.errors import Reason, Refused
from serving.gateway.openai import chat, completions, responses
from serving.gateway.openai.checks import Shape, check_members
from serving.gateway.openai.limits import Limits
from serving.gateway.openai.residency import check_country
from serving.gateway.openai.streams import wants_usage
from serving.gateway.openai.strict_json import parse
from serving.types import Endpoint, Prompt

LONGEST_TOKEN = 512
"""Characters. No tokenizer in use has a longer token, so a longer text surely has more tokens than this counts."""

SHAPES: Mapping[Endpoint, Shape] = {
    Endpoint.CHAT: chat.SHAPE,
    Endpoint.COMPLETIONS: completions.SHAPE,
    Endpoint.RESPONSES: responses.SHAPE,
}


def read(endpoint: Endpoint, raw: bytes, limits: Limits) -> Prompt:
    """Read a body. Raises :class:`Refused` and nothing else, whatever the bytes are."""
    fields = parse(raw)
    check_country(fields, limits.country)
    shape = SHAPES[endpoint]
    check_members(fields, "", shape.fields, limits, *shape.required)
    shape.check_together(fields, limits)
    if len(raw) > limits.context_length * LONGEST_TOKEN and fields.get("truncation") != "auto":
        _check_context(fields[shape.prompt], shape.prompt, limits)
    return Prompt(
        endpoint=endpoint,
        model=str(fields["model"]),
        stream=fields.get("stream") is True,
        include_usage=wants_usage(fields),
        body=raw,
        fields=fields,
    )


def _check_context(prompt: object, param: str, limits: Limits) -> None:
    """Refuse what cannot fit, however it is tokenized. The replica counts exactly."""
    least = _characters(prompt) // LONGEST_TOKEN
    if least > limits.context_length:
        raise Refused(Reason.CONTEXT_LENGTH_EXCEEDED, param=param, limit=limits.context_length, got=least)


def _characters(value: object) -> int:
    """The characters of every text below ``value``, without its pictures."""
    count = 0
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            count += 0 if node.startswith("data:image/") else len(node)
        elif isinstance(node, dict):
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return count
