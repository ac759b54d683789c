"""Which language to answer in: content negotiation by ``Accept-Language`` (RFC 9110, section 12.5.4).

Ranges are matched by their primary tag alone (``et-EE`` is served by ``et``), as in the lookup of RFC 4647.
"""

from __future__ import annotations

import re
from functools import lru_cache

ENGLISH = "en"
LANGUAGES = ("en", "et", "ru", "ko", "el", "kk", "sk", "de", "ja", "ar", "es", "hi")
"""The languages that have a catalogue. A caller may choose any of them, wherever they are."""

LONGEST_HEADER = 512
"""Browsers send some 100 characters. What is longer is not read."""

_RANGE = re.compile(
    r"[ \t]*(?P<primary>\*(?!-)|[a-z]{1,8})(?:-[a-z0-9]{1,8})*[ \t]*"
    r"(?:;[ \t]*q=(?P<weight>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?",
    re.IGNORECASE | re.ASCII,
)


def negotiate(accept_language: str | None, country_languages: tuple[str, ...]) -> str:
    """The language that the caller likes best of those spoken here; the country's first where they do not say.

    Never raises, and does little work however hostile the header: malformed ranges are passed over.
    """
    if accept_language is None or len(accept_language) > LONGEST_HEADER:
        accept_language = ""
    return _choose(accept_language, country_languages)


@lru_cache(maxsize=1024)
def _choose(header: str, country_languages: tuple[str, ...]) -> str:
    offered = tuple(dict.fromkeys((*country_languages, ENGLISH, *LANGUAGES)))
    weights = _weights(header)
    others = weights.pop("*", 0.0)
    liked = {tag: weight for tag, weight in weights.items() if weight and tag in offered}
    bearable = [tag for tag in offered if weights.get(tag) != 0]
    unnamed = [tag for tag in bearable if tag not in weights]
    if others and unnamed:
        liked[unnamed[0]] = others
    # Of equals, max() takes the first: the one named earlier, and the named before the starred.
    return max(liked, key=liked.__getitem__, default=(bearable or offered)[0])


def _weights(header: str) -> dict[str, float]:
    """The primary tags of the well-formed ranges, each with the highest weight given to it."""
    weights: dict[str, float] = {}
    for part in header.split(","):
        if found := _RANGE.fullmatch(part):
            tag = found["primary"].lower()
            weights[tag] = max(weights.get(tag, 0.0), float(found["weight"] or 1))
    return weights
