"""Bounds on what a caller may have compiled into an automaton: regular expressions, grammars, choices.

The replica compiles in a sandbox; this is the cheap first line. A regular expression is measured by how many
atoms it has once its counted repetitions are written out, since that is what a compiler does with them:
``(a{99}){99}`` is short to send and long to build.
"""

from __future__ import annotations

import re

from serving.errors import Reason, Refused
from serving.gateway.openai.checks import check_array, check_string
from serving.gateway.openai.limits import Limits

MAX_REGEX = 1024
MAX_REPETITION = 256
MAX_ATOMS = 10_000
MAX_GROUP_DEPTH = 32
MAX_GRAMMAR = 16 << 10
MAX_CHOICES = 256
MAX_CHOICE = 256

_COUNTED = re.compile(r"\{([0-9]+)(?:(,)([0-9]*))?\}")
_TOKEN = re.compile(
    r"""
    (?P<quantifier>[*+?][?+]?|\{[0-9]+(?:,[0-9]*)?\}[?+]?)
    |(?P<open>\((?:\?:|\?P?<[A-Za-z_]\w*>)?(?!\?))
    |(?P<close>\))
    |(?P<backreference>\\(?:[1-9]|[kg][<{']))
    |(?P<atom>\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[^()\[\\])
    """,
    re.VERBOSE | re.DOTALL,
)


def regex_complaint(pattern: str) -> str | None:
    """What is wrong with a regular expression, in symbols that need no translation, or ``None``."""
    if len(pattern) > MAX_REGEX:
        return f"length <= {MAX_REGEX}"
    groups: list[int] = []
    total = last = position = 0
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        if token is None:
            return "(...) (?:...) [...] {m,n} * + ? | ^ $ ."
        position = token.end()
        match token.lastgroup:
            case "backreference":
                return "no \\1 \\k<name>"
            case "open":
                groups.append(total)
                total = last = 0
            case "close":
                if not groups:
                    return "( = )"
                last, total = total, groups.pop() + total
            case "quantifier":
                times = _times(token["quantifier"])
                if times > MAX_REPETITION:
                    return f"{{n}} <= {MAX_REPETITION}"
                total, last = total + last * (times - 1), last * times
            case _:
                total, last = total + 1, 1
        if total > MAX_ATOMS:
            return f"{{m}} * {{n}} <= {MAX_ATOMS}"
        if len(groups) > MAX_GROUP_DEPTH:
            return f"(((...))) <= {MAX_GROUP_DEPTH}"
    return "( = )" if groups else None


def _times(quantifier: str) -> int:
    counted = _COUNTED.match(quantifier)
    if counted is None:
        return 1
    least, comma, most = counted.groups()
    digits = max((least, most or ""), key=len) if comma else least
    if len(digits) > len(str(MAX_REPETITION)):
        return MAX_REPETITION + 1
    return max(int(least), int(most or 0), 1)


def check_regex(value: object, param: str, limits: Limits) -> None:
    complaint = regex_complaint(check_string(value, param))
    if complaint is not None:
        raise _invalid(param, complaint)


def check_grammar(value: object, param: str, limits: Limits) -> None:
    grammar = check_string(value, param)
    if len(grammar) > MAX_GRAMMAR:
        raise _invalid(param, f"length <= {MAX_GRAMMAR}")
    if any(_times(counted[0]) > MAX_REPETITION for counted in _COUNTED.finditer(grammar)):
        raise _invalid(param, f"{{n}} <= {MAX_REPETITION}")


def check_choice(value: object, param: str, limits: Limits) -> None:
    choices = check_array(value, param)
    if len(choices) > MAX_CHOICES:
        raise _invalid(param, f"length <= {MAX_CHOICES}")
    for choice in choices:
        check_string(choice, param)
        if len(str(choice)) > MAX_CHOICE:
            raise _invalid(param, f"length of each <= {MAX_CHOICE}")


def _invalid(param: str, expected: str) -> Refused:
    return Refused(Reason.INVALID_GRAMMAR, param=param, expected=expected)
