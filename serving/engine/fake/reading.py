"""From a request's body to what is asked of the fake engine, with the refusals that vLLM has, in its words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from serving.engine.fake.text import Wish, minimal_json
from serving.engine.port import EngineFacts
from serving.types import Endpoint

Body = dict[str, Any]

_PROMPT = {Endpoint.CHAT: "messages", Endpoint.COMPLETIONS: "prompt", Endpoint.RESPONSES: "input"}


class EngineRefusal(Exception):
    """An answer of vLLM's that is an error."""

    def __init__(
        self, message: str, kind: str = "BadRequestError", status: int = 400, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


def invalid(message: str, param: str, value: object) -> EngineRefusal:
    """vLLM's ``VLLMValidationError``, which repeats parameter and value in its message."""
    return EngineRefusal(f"{message} (parameter={param}, value={value})", param=param)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that the engine can begin."""

    body: Body
    prompts: tuple[tuple[str, ...], ...]
    n: int
    wish: Wish
    tool: str | None = None
    """The function whose arguments the answer is."""
    late: EngineRefusal | None = None
    """What vLLM finds out only when it generates: for a stream that is after the head was sent."""


def read(endpoint: Endpoint, body: Body, facts: EngineFacts) -> Ask:
    if body.get(_PROMPT[endpoint]) is None:
        raise _missing(_PROMPT[endpoint], body)
    if body.get("model") not in (None, facts.model):
        message = f"The model `{body['model']}` does not exist. Valid aliases: {facts.model}."
        raise EngineRefusal(message, "NotFoundError", 404, "model")
    prompts, begun = _prompts(endpoint, body)
    tool, forced = _forced(endpoint, body)
    stop = body.get("stop") or ()
    wish = Wish(
        seed=body.get("seed") or 0,
        begun=begun,
        max_tokens=_max_tokens(endpoint, body, facts, max(map(len, prompts))),
        min_tokens=body.get("min_tokens") or 0,
        ignore_eos=bool(body.get("ignore_eos")),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        include_stop=bool(body.get("include_stop_str_in_output")),
        forced=forced,
    )
    return Ask(body, prompts, body.get("n") or 1, wish, tool, _late(body, facts))


def prompt_words(endpoint: Endpoint, body: Body) -> tuple[str, ...]:
    return _prompts(endpoint, body)[0][0]


def _prompts(endpoint: Endpoint, body: Body) -> tuple[tuple[tuple[str, ...], ...], int]:
    """The prompts' words, and how many at their end are of an answer already begun."""
    if endpoint is Endpoint.COMPLETIONS:
        prompt = body["prompt"]
        several = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
        return tuple(tuple(_words(one)) for one in several), 0
    if endpoint is Endpoint.CHAT:
        messages = body["messages"]
    else:
        given = body["input"]
        first = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
        messages = first + ([{"role": "user", "content": given}] if isinstance(given, str) else given)
    last = messages[-1] if body.get("continue_final_message") else {}
    begun = list(_words(last.get("content")))
    told = messages[:-1] if last else messages
    words = [
        word for message in told for word in (f"<{message.get('role')}>", *_words(message.get("content", message)))
    ]
    tools = _words(json.dumps(body["tools"])) if body.get("tools") else ()
    return ((*tools, *words, "<assistant>", *begun),), len(begun)


def _words(content: object) -> Iterator[str]:
    match content:
        case str():
            yield from content.split()
        case list():
            for part in content:
                yield from _words(part)
        case dict():
            yield from _words(content.get("text") or json.dumps(content))
        case int():
            yield str(content)


def _max_tokens(endpoint: Endpoint, body: Body, facts: EngineFacts, prompt: int) -> int:
    names = {
        Endpoint.CHAT: ("max_completion_tokens", "max_tokens"),
        Endpoint.COMPLETIONS: ("max_tokens",),
        Endpoint.RESPONSES: ("max_output_tokens",),
    }[endpoint]
    default: tuple[str, Any] = ("max_tokens", 16) if endpoint is Endpoint.COMPLETIONS else (names[-1], None)
    name, asked = next(((name, body[name]) for name in names if body.get(name) is not None), default)
    context = facts.context_length
    if asked is not None and asked > context:
        message = f"{name}={asked} cannot be greater than max_model_len={context}. Please request fewer output tokens."
        raise invalid(message, name, asked)
    if prompt > context:
        message = (
            f"This model's maximum context length is {context} tokens. However, your prompt contains at least "
            f"{context + 1} input tokens, which exceeds this limit even without any output tokens. Please reduce the "
            "length of the input prompt."
        )
        raise invalid(message, "input_tokens", context + 1)
    granted = context - prompt if asked is None else min(asked, context - prompt)
    if granted < 1:
        raise invalid(f"max_tokens must be at least 1, got {granted}.", "max_tokens", granted)
    return granted


def _forced(endpoint: Endpoint, body: Body) -> tuple[str | None, str | None]:
    """The function that must be called, and the text that grammars leave."""
    choice = body.get("tool_choice")
    functions = {
        function["name"]: function for tool in body.get("tools") or [] if (function := tool.get("function", tool))
    }
    if choice == "required" or isinstance(choice, dict):
        named = choice if isinstance(choice, dict) else {"name": next(iter(functions))}
        name = named.get("function", named)["name"]
        return name, minimal_json(functions[name].get("parameters") or {})
    if endpoint is Endpoint.RESPONSES:
        asked = (body.get("text") or {}).get("format") or {}
        schema = asked.get("schema")
    else:
        asked = body.get("response_format") or {}
        schema = (asked.get("json_schema") or {}).get("schema")
    structured = body.get("structured_outputs") or {}
    schema = schema or structured.get("json")
    if schema:
        return None, minimal_json(json.loads(schema) if isinstance(schema, str) else schema)
    if asked.get("type") == "json_object":
        return None, "{}"
    return None, structured["choice"][0] if structured.get("choice") else None


def _late(body: Body, facts: EngineFacts) -> EngineRefusal | None:
    outside = [int(token) for token in body.get("logit_bias") or {} if not 0 <= int(token) < facts.vocab_size]
    if outside:
        message = (
            f"token_id(s) {outside} in logit_bias contain out-of-vocab token ids. Vocabulary size: {facts.vocab_size}"
        )
        return invalid(message, "logit_bias", outside)
    try:
        re.compile((body.get("structured_outputs") or {}).get("regex") or "")
    except re.error as error:
        return EngineRefusal(f"Failed to transform regex into a grammar: {error}")
    return None


def _missing(name: str, body: Body) -> EngineRefusal:
    what = {"type": "missing", "loc": f"body.{name}", "msg": "Field required", "input": f"<dict of {len(body)} items>"}
    return EngineRefusal(f"1 validation error:\n  {what}", "Bad Request", param=f"body.{name}")
