"""``python -m serving.engine.describe`` writes ``arguments.json`` anew after vLLM's pin has moved."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from serving.engine.arguments import DESCRIPTION, Description
from serving.engine.vllm import parser

_WORD = "word"


def describe_arguments() -> dict[str, Description]:
    """The pinned vLLM's parser in the form of ``arguments.json``."""
    return {
        action.dest: {"takes": _takes(action), "type": _type(action), "choices": _choices(action)}
        for action in sorted(parser()._actions, key=lambda action: action.dest)
        if action.option_strings and action.dest != "help"
    }


def _takes(action: argparse.Action) -> Any:
    if isinstance(action, argparse.BooleanOptionalAction):
        return "switch"
    if action.nargs == 0:
        return "nothing"
    return "many" if action.nargs in ("+", "*") else "one"


def _type(action: argparse.Action) -> Any:
    """Found by trying the argument's own converter, since converters do not say what they make."""
    if not callable(action.type) or _converts(action.type, _WORD) or _converts(action.type, "{}"):
        return "text"
    for kind, sample in ((int, "7"), (float, "0.5")):
        if _converts(action.type, sample) is kind:
            return kind.__name__
    return "text"


def _converts(convert: Callable[[str], object], sample: str) -> type | None:
    try:
        return type(convert(sample))
    except Exception:  # Converters of vLLM refuse with whatever comes: any refusal says "not this".
        return None


def _choices(action: argparse.Action) -> list[str] | None:
    return sorted(map(str, action.choices)) if action.choices else None


if __name__ == "__main__":
    DESCRIPTION.write_text(json.dumps(describe_arguments(), indent=1) + "\n")
