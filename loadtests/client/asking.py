"""What each kind of user asks: paths and bodies of requests, made of prompts of a wanted length.

Answers have exact lengths: ``min_tokens`` and ``ignore_eos`` (vLLM's extensions) keep a model from stopping early, so
that two runs do the same work. An endpoint that knows no such fields is asked without them (``exact=False``).

Every function that writes text takes the run's ``salt``: a service that is still warm from the last run must not know
the next one's prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.client import prompts
from loadtests.record import Arrival, Kind

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"

AGENT_SHARED = 0.95
"""Of an agent's prompt, at least: its instructions and tools are the same in every step of every session."""
_FOLLOW_UP = 4
"""What a user adds in a later turn is a fourth of the first message, as short questions follow a long one."""
Message = Mapping[str, Any]

TOOLS = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Look up the {what} and return it.",
            "parameters": {
                "type": "object",
                "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}},
                "required": ["query"],
            },
        },
    }
    for name, what in (("search", "documents that fit"), ("read_file", "file's content"), ("run_query", "table's rows"))
)
PLACE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "people": {"type": "integer", "minimum": 0, "maximum": 1000000},
        "coastal": {"type": "boolean"},
    },
    "required": ["name", "people", "coastal"],
    "additionalProperties": False,
}
"""Small, so that compiling the grammar is not what is measured."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request, but for who asks whom."""

    path: str
    fields: Mapping[str, Any]
    stream: bool


def question(
    arrival: Arrival, model: str, *, exact: bool = True, said: Sequence[Message] = (), salt: int = 0
) -> Question:
    """The request of an arrival. ``said`` is the session so far, for the kinds that have one; else it is begun."""
    match arrival.kind:
        case Kind.COMPLETIONS:
            fields = {"prompt": prompt(arrival, salt), **_length(arrival, exact)}
            return _asked(COMPLETIONS, model, fields)
        case Kind.RESPONSES:
            return _asked(RESPONSES, model, _response(arrival, exact, salt), usage=False)
        case Kind.STRUCTURED:
            # A grammar ends by itself: to be made to go on would break it.
            shape = {"type": "json_schema", "json_schema": {"name": "place", "schema": PLACE, "strict": True}}
            fields = {"messages": opening(arrival, salt), "max_tokens": arrival.output_tokens, "response_format": shape}
            return _asked(CHAT, model, fields)
        case Kind.AGENT:
            # The tools are in the prompt, which is what they cost; calls would make answers of any length.
            fields = {"messages": list(said or opening(arrival, salt)), "tools": TOOLS, "tool_choice": "none"}
            return _asked(CHAT, model, {**fields, **_length(arrival, exact)})
        case _:
            fields = {"messages": list(said or opening(arrival, salt)), **_length(arrival, exact)}
            return _asked(CHAT, model, fields, stream=arrival.kind is not Kind.CHAT_PLAIN)


def opening(arrival: Arrival, salt: int = 0) -> list[Message]:
    """The messages of a first turn: what is shared is the system's, the rest the user's."""
    begin, own = _parts(arrival, salt)
    system: list[Message] = [{"role": "system", "content": begin}] if begin else []
    return [*system, {"role": "user", "content": own}]


def prompt(arrival: Arrival, salt: int = 0) -> str:
    """The same as one text."""
    return "\n\n".join(part for part in _parts(arrival, salt) if part)


def went_on(said: Sequence[Message], answer: str, arrival: Arrival, salt: int = 0) -> list[Message]:
    """The session with an answer and what follows it, where ``arrival`` is the next turn."""
    own = prompts.text(max(8, _own_tokens(arrival) // _FOLLOW_UP), arrival.serial ^ salt)
    if arrival.kind is not Kind.AGENT:
        return [*said, {"role": "assistant", "content": answer}, {"role": "user", "content": own}]
    id = f"call_{arrival.turn}"
    function = {"name": "search", "arguments": '{"query": "next"}'}
    call = {"id": id, "type": "function", "function": function}
    return [
        *said,
        {"role": "assistant", "content": answer, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": id, "content": own},
    ]


def _parts(arrival: Arrival, salt: int) -> tuple[str, str]:
    own = _own_tokens(arrival)
    shared = prompts.shared(arrival.prompt_tokens - own, arrival.prefix ^ salt)
    return shared, prompts.text(own, arrival.serial ^ salt)


def _own_tokens(arrival: Arrival) -> int:
    """Tokens that no other session has; at least one, for a message must say something."""
    shared = arrival.shared_tokens
    if arrival.kind is Kind.AGENT:
        shared = max(shared, int(AGENT_SHARED * arrival.prompt_tokens))
    return max(1, arrival.prompt_tokens - shared)


def _length(arrival: Arrival, exact: bool) -> dict[str, Any]:
    most: dict[str, Any] = {"max_tokens": arrival.output_tokens}
    return {**most, "min_tokens": arrival.output_tokens, "ignore_eos": True} if exact else most


def _response(arrival: Arrival, exact: bool, salt: int) -> dict[str, Any]:
    # Responses know no min_tokens; ignore_eos alone has the same effect, since nothing else ends an answer here.
    fields: dict[str, Any] = {
        "input": prompt(arrival, salt),
        "max_output_tokens": arrival.output_tokens,
        "store": False,
    }
    return {**fields, "ignore_eos": True} if exact else fields


def _asked(path: str, model: str, fields: dict[str, Any], *, stream: bool = True, usage: bool = True) -> Question:
    fields = {"model": model, **fields, "stream": stream}
    if stream and usage:
        fields["stream_options"] = {"include_usage": True}
    return Question(path, fields, stream)
