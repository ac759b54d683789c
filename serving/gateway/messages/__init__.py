"""What callers are told, in their own language.

A catalogue is ``<language>.yaml`` beside this file: for each :class:`Reason` a sentence, or several of which the
first is used whose blanks can all be filled. The last has no blanks, so there is always something to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Formatter

import yaml

from serving.errors import Reason
from serving.gateway.messages.languages import ENGLISH, LANGUAGES, negotiate

__all__ = ["BLANKS", "LANGUAGES", "clean", "load", "negotiate", "spoken", "text"]

BLANKS = frozenset(
    {"param", "limit", "got", "expected", "name", "address", "country", "model", "detail", "allow", "seconds"}
)
LONGEST_FACT = 200
LONGEST_DETAIL = 500

_RIGHT_TO_LEFT = frozenset({"ar"})
_FIRST_STRONG_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"
_BREAKS = re.compile("[\t-\r\x85\u2028\u2029]+")
# Bidi marks and joiners pass: words of some scripts need them. Bidi overrides and isolates could disguise the rest.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Variant:
    template: str
    blanks: frozenset[str]


_UNWRITTEN = (_Variant("The request could not be served.", frozenset()),)


def text(
    reason: Reason, language: str, facts: Mapping[str, str | int | float] | None = None, param: str | None = None
) -> str:
    """The message for ``reason``. Never raises: a fact that is missing or unfit is a blank that is not offered."""
    spoken_here = spoken(language)
    known = {**(facts or {}), **({} if param is None else {"param": param})}
    fills = {name: fill for name in BLANKS & known.keys() if (fill := clean(name, known[name]))}
    if spoken_here in _RIGHT_TO_LEFT:
        # Otherwise the brackets and signs at a Latin value's ends would be drawn on its wrong side.
        fills = {name: f"{_FIRST_STRONG_ISOLATE}{fill}{_POP_ISOLATE}" for name, fill in fills.items()}
    variants = _catalogue(spoken_here).get(reason.key, _UNWRITTEN)
    chosen = next((variant for variant in variants if variant.blanks <= fills.keys()), _UNWRITTEN[0])
    return chosen.template.format_map(fills)


def spoken(language: str) -> str:
    """The language that :func:`text` answers in when asked for ``language``."""
    return language if language in LANGUAGES else ENGLISH


def clean(name: str, value: str | int | float) -> str:
    """A fact as it may stand in a message: one line, bounded, nothing invisible that misleads."""
    try:
        words = str(value)
    except ValueError:  # Python declines to write integers of thousands of digits.
        return ""
    longest = LONGEST_DETAIL if name == "detail" else LONGEST_FACT
    if len(words) > longest:
        words = words[: longest - 1] + "…"
    return _CONTROLS.sub("", _BREAKS.sub(" ", words)).strip()


def load() -> None:
    """Read all catalogues now, so that no request waits for a file."""
    for language in LANGUAGES:
        _catalogue(language)


@cache
def _catalogue(language: str) -> Mapping[str, tuple[_Variant, ...]]:
    written = yaml.safe_load(files(__name__).joinpath(f"{language}.yaml").read_text(encoding="utf-8"))
    own = {key: tuple(map(_variant, [entry] if isinstance(entry, str) else entry)) for key, entry in written.items()}
    return own if language == ENGLISH else {**_catalogue(ENGLISH), **own}


def _variant(template: str) -> _Variant:
    return _Variant(template, frozenset(name for _, name, _, _ in Formatter().parse(template) if name))
