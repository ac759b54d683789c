"""What may stand in a record or a receipt: identifiers and numbers, so that nobody's text does (R7)."""

from __future__ import annotations

import re
from collections.abc import Callable

Rule = Callable[[object], bool]


def matching(pattern: str) -> Rule:
    """Strings that the whole pattern fits."""
    fits = re.compile(pattern).fullmatch
    return lambda value: type(value) is str and fits(value) is not None


def count(value: object) -> bool:
    """A whole number that every JSON parser reads alike."""
    return type(value) is int and 0 <= value < 2**53


name = matching(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
"""Whatever we or an operator named: a request, a model, a node."""
word = matching(r"[a-z][a-z0-9_.-]{0,63}")
"""One of a few that our code knows."""
content_digest = matching(r"sha256:[0-9a-f]{64}")
line_hash = matching(r"[0-9a-f]{64}")
