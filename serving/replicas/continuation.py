"""How an answer that its replica left unfinished is carried on by another one, so that the client sees one stream.

Pure. While an answer streams, its events are only kept (:class:`Told`); they are parsed once it has been cut. What was
said so far becomes the beginning of the assistant's message, which vLLM continues (``continue_final_message``), and
the second stream is written over so that it follows on from the first: same id, same time, one role, one sum.

Only where nothing is lost by it: one choice of plain text. A call half made, a grammar half followed, a stop text half
written or a reasoning half thought live in the engine that is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from serving.types import Endpoint, Prompt

Json = dict[str, Any]

MAX_TOLD_BYTES = 1 << 20
"""About four thousand tokens of an answer. A longer one is not carried on."""

_END = b"\n\n"
_DATA = b"data: "
DONE = b"data: [DONE]\n\n"

_LIMITS = ("max_tokens", "max_completion_tokens")
_PROMPTS = {Endpoint.CHAT: "messages", Endpoint.COMPLETIONS: "prompt"}
CARRIED = frozenset(
    {
        *("model", "messages", "prompt", "stream", "stream_options", "min_tokens", *_LIMITS),
        *("temperature", "top_p", "top_k", "min_p", "seed", "logit_bias", "bad_words"),
        *("repetition_penalty", "frequency_penalty", "presence_penalty", "stop_token_ids", "ignore_eos"),
        *("metadata", "user", "store", "service_tier", "safety_identifier", "verbosity", "prediction"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
    }
)
"""The fields that mean the same for a half answer as for a whole. Any other forbids it, where it says anything."""

_SAYS_NOTHING: Mapping[str, object] = {
    "n": 1,
    "best_of": 1,
    "echo": False,
    "logprobs": False,
    "add_generation_prompt": True,
    "continue_final_message": False,
    "include_stop_str_in_output": False,
    "skip_special_tokens": True,
    "response_format": {"type": "text"},
}
_COMPLETION_TOKENS = 16
"""What the API grants a completion that names no number."""


def possible(prompt: Prompt) -> bool:
    """Whether an answer to this could be carried on at all."""
    if not prompt.stream or prompt.endpoint not in _PROMPTS:
        return False
    if prompt.endpoint is Endpoint.COMPLETIONS and not isinstance(prompt.fields["prompt"], str):
        return False
    return all(field in CARRIED or _says_nothing(field, value) for field, value in prompt.fields.items())


def _says_nothing(field: str, value: object) -> bool:
    default = _SAYS_NOTHING.get(field)
    return value is None or (type(value) is type(default) and value == default)


class Told:
    """The events that a client has got, by reference. One too many, and none are kept."""

    __slots__ = ("_room", "events")

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self._room = MAX_TOLD_BYTES

    def add(self, events: bytes) -> None:
        self._room -= len(events)
        if self._room >= 0:
            self.events.append(events)
        else:
            self.events.clear()

    @property
    def whole(self) -> bool:
        return self._room >= 0

    @property
    def pieces(self) -> int:
        """How many events there are, the one that opens the answer aside: at most as many as tokens."""
        return max(0, sum(event.count(_END) for event in self.events) - 1)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the client has got, understood."""

    head: Json
    """``id``, ``object``, ``created`` and ``model`` of the stream; empty where it has got nothing."""
    text: str
    finished: bool
    """The last piece of the text is there, and only what follows it is missing."""
    summed: bool
    """So is the usage."""


def beginning(events: Sequence[bytes]) -> Beginning | None:
    """The beginning that these whole events tell, or ``None`` where it cannot be carried on."""
    head: Json = {}
    texts = []
    finished = summed = False
    for chunk in _chunks(b"".join(events)):
        summed = summed or chunk.get("usage") is not None
        head = head or {name: chunk[name] for name in ("id", "object", "created", "model")}
        for choice in chunk["choices"]:
            said = choice.get("delta", choice)
            if any(said.get(name) for name in ("tool_calls", "reasoning", "reasoning_content", "refusal")):
                return None
            texts.append(said.get("content") or said.get("text") or "")
            finished = finished or choice["finish_reason"] is not None
    text = "".join(texts)
    # A template would trim a beginning of blanks, and the model would write them again.
    return None if text and not text.strip() else Beginning(head, text, finished, summed)


def counts(prompt: Prompt, begun: Beginning) -> bool:
    """Whether the number of tokens told matters to what is still to come."""
    if not begun.text:
        return False
    return prompt.include_usage or _limit(prompt) is not None or bool(prompt.fields.get("min_tokens"))


def text_to_count(prompt: Prompt, begun: Beginning) -> bytes:
    """The body for ``/tokenize`` that asks how many tokens were told."""
    return _bytes({"model": prompt.model, "prompt": begun.text, "add_special_tokens": False})


def prompt_to_count(prompt: Prompt) -> bytes:
    """The body for ``/tokenize`` that asks how many tokens the prompt has."""
    name = _PROMPTS[prompt.endpoint]
    return _bytes({"model": prompt.model, name: prompt.fields[name]})


def is_spent(prompt: Prompt, begun: Beginning, told: int) -> bool:
    """Whether nothing of the text is missing any more."""
    limit = _limit(prompt)
    return begun.finished or (limit is not None and told >= limit)


def continued(prompt: Prompt, begun: Beginning, told: int) -> Prompt:
    """The request for the rest, of whose answer ``told`` tokens are there already."""
    if not begun.text:
        return prompt
    fields = {**prompt.fields}
    if (least := fields.get("min_tokens")) and isinstance(least, int):
        fields["min_tokens"] = max(0, least - told)
    for name in _LIMITS:
        if isinstance(limit := fields.get(name), int):
            fields[name] = limit - told
    if prompt.endpoint is Endpoint.CHAT:
        said = {"role": "assistant", "content": begun.text}
        messages = fields["messages"]
        assert isinstance(messages, list)
        fields |= {"messages": [*messages, said], "continue_final_message": True, "add_generation_prompt": False}
    else:
        limit = _limit(prompt)
        fields |= {
            "prompt": f"{fields['prompt']}{begun.text}",
            **({} if limit is None else {"max_tokens": limit - told}),
        }
    return replace(prompt, fields=fields, body=_bytes(fields))


def ending(prompt: Prompt, begun: Beginning, asked: int, told: int) -> bytes:
    """What is missing after the last piece of the text: its reason where that is missing, the sum, the end."""
    chunks = []
    if not begun.finished:
        piece: Json = {"delta": {}} if prompt.endpoint is Endpoint.CHAT else {"text": ""}
        choice = {"index": 0, **piece, "logprobs": None, "finish_reason": "length"}
        chunks.append({**begun.head, "choices": [choice]})
    if prompt.include_usage and not begun.summed:
        usage = {**_usage(asked, told), "prompt_tokens_details": {"cached_tokens": 0}}
        chunks.append({**begun.head, "choices": [], "usage": usage})
    return b"".join(map(_event, chunks)) + DONE


class Rest:
    """Writes a second stream over as the continuation of the first. Takes bytes as they come, gives whole events."""

    def __init__(self, begun: Beginning, asked: int, told: int) -> None:
        """
        Args:
            asked: tokens of the prompt, 0 where nobody asked for a sum.
            told: tokens of the beginning.
        """
        self._begun = begun
        self._asked = asked
        self._told = told
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        data = self._held + data
        end = data.rfind(_END) + len(_END)
        if end < len(_END):
            self._held = data
            return b""
        self._held = data[end:]
        return b"".join(self._event(event + _END) for event in data[: end - len(_END)].split(_END))

    def _event(self, event: bytes) -> bytes:
        chunk = _chunk(event)
        if chunk is None or not self._begun.head:
            return event
        chunk |= self._begun.head
        choices = [choice for choice in chunk["choices"] if not _opens(choice)]
        if len(choices) < len(chunk["choices"]):
            return b""
        if usage := chunk.get("usage"):
            chunk["usage"] = self._sum(usage)
        return _event(chunk)

    def _sum(self, usage: Json) -> Json:
        """The second prompt held what the first answer said."""
        told = usage["completion_tokens"] + self._told
        details = usage.get("prompt_tokens_details") or {}
        cached = min(details.get("cached_tokens") or 0, self._asked)
        return {**_usage(self._asked, told), "prompt_tokens_details": {**details, "cached_tokens": cached}}


def _usage(asked: int, told: int) -> Json:
    return {"prompt_tokens": asked, "total_tokens": asked + told, "completion_tokens": told}


def _limit(prompt: Prompt) -> int | None:
    """The most tokens that the answer may have."""
    default = _COMPLETION_TOKENS if prompt.endpoint is Endpoint.COMPLETIONS else None
    found = [value for name in reversed(_LIMITS) if isinstance(value := prompt.fields.get(name), int)]
    return found[0] if found else None if "max_tokens" in prompt.fields else default


def _opens(choice: Json) -> bool:
    """The chunk that only says whose turn it is."""
    delta: Mapping[str, object] = choice.get("delta", {})
    return "role" in delta and not delta.get("content") and choice["finish_reason"] is None


def _chunks(events: bytes) -> Iterator[Json]:
    for event in events.split(_END):
        if (chunk := _chunk(event)) is not None:
            yield chunk


def _chunk(event: bytes) -> Json | None:
    """The chunk in an event; ``None`` for the end, an error and anything else."""
    if not event.startswith(_DATA + b"{"):
        return None
    chunk: Json = json.loads(event[len(_DATA) :])
    return chunk if "choices" in chunk else None


def _event(chunk: Json) -> bytes:
    return _DATA + _bytes(chunk) + _END


def _bytes(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
