"""What the fake engine says: text that only the question, the seed and the place decide.

A token is a word with the space before it. Since the place counts from the beginning of the assistant's message, an
answer that is continued (``continue_final_message``) goes on exactly as it would have gone on by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

WORDS = ("amber", "birch", "cloud", "dune", "fern", "glade", "isle", "kelp", "meadow", "quay", "river", "tundra")
_SHORTEST, _SPREAD = 8, 24


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice, complete: the text of each token, and why it ended."""

    tokens: tuple[str, ...]
    finish_reason: str
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What shapes an answer, apart from the prompt."""

    seed: int
    begun: int
    """Tokens of the answer that the prompt already holds."""
    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    forced: str | None = None
    """The whole text, where a grammar leaves no choice."""


def answer(prompt: Sequence[str], wish: Wish, choice: int) -> Answer:
    """The ``choice``-th answer to ``prompt`` (its words, those of a begun answer at its end)."""
    question = " ".join(prompt[: len(prompt) - wish.begun])
    tokens = _forced(wish) if wish.forced is not None else _free(question, wish, choice)
    reason = "length" if len(tokens) >= wish.max_tokens else "stop"
    return _stopped(Answer(tuple(tokens[: wish.max_tokens]), reason), wish)


def tokens_of(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


def token_id(token: str, vocab_size: int) -> int:
    return _draw(token) % vocab_size


def instance(schema: dict[str, Any], root: dict[str, Any] | None = None) -> object:
    """The smallest value that ``schema`` allows, for the keywords that tests use."""
    root = schema if root is None else root
    if "$ref" in schema:
        return instance(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return instance(schema[union][0], root)
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) else kind:
        case "string":
            return "word".ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return True
        case "null":
            return None
        case "array":
            return [instance(schema.get("items", {"type": "null"}), root)] * schema.get("minItems", 0)
        case _:
            properties = schema.get("properties", {})
            return {name: instance(properties.get(name, {"type": "null"}), root) for name in schema.get("required", [])}


def minimal_json(schema: dict[str, Any]) -> str:
    return json.dumps(instance(schema), ensure_ascii=False)


def _draw(*parts: object) -> int:
    return int.from_bytes(sha256("\0".join(map(str, parts)).encode()).digest()[:4])


def _forced(wish: Wish) -> list[str]:
    return tokens_of(wish.forced or "")[wish.begun :]


def _free(question: str, wish: Wish, choice: int) -> list[str]:
    natural = _SHORTEST + _draw(question, wish.seed, choice) % _SPREAD - wish.begun
    count = wish.max_tokens if wish.ignore_eos else min(max(natural, wish.min_tokens), wish.max_tokens)
    places = range(wish.begun, wish.begun + count)
    words = [WORDS[_draw(question, wish.seed, choice, place) % len(WORDS)] for place in places]
    return [word if place == 0 else f" {word}" for place, word in zip(places, words, strict=True)]


def _stopped(whole: Answer, wish: Wish) -> Answer:
    """Cut at the stop string that is completed first."""
    text = "".join(whole.tokens)
    found = [(at + len(stop), at, stop) for stop in wish.stop if (at := text.find(stop)) >= 0]
    if not found:
        return whole
    end, at, stop = min(found)
    visible = end if wish.include_stop else at
    cut: list[str] = []
    done = 0
    for token in whole.tokens:
        if done >= end:
            break
        cut.append(token[: max(0, visible - done)])
        done += len(token)
    return Answer(tuple(cut), "stop", stop)
