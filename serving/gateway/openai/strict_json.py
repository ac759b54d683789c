"""Bytes to a JSON object, stricter than the replica's parser, so that the two never read different things.

The replica gets the same bytes and reads them with ``json.loads``, which takes the last of two equal keys,
``NaN``, integers of any size, UTF-16 and lone surrogates. Each of these is refused here. The scanner is the
standard library's own in C; what it cannot see is looked for only when a cheap test on the bytes says that it
may be there.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import NoReturn

from serving.errors import Reason, Refused

MAX_DEPTH = 64
INT64 = range(-(1 << 63), 1 << 63)

_UTF8_BOM = b"\xef\xbb\xbf"
_SHORTEST_SUSPECT = 19
_DIGITS = bytes(ord("0") if chr(i) in "0123456789" else ord("e") if chr(i) in "eE" else i for i in range(256))
_SUSPECT_NUMBERS = (b"0" * _SHORTEST_SUSPECT, b"0e000", b"0e+000")
_SUSPECT_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_SUSPECT_EMBEDDED = re.compile(r"\\u|[0-9]{400}")
_BAD_CHARACTER = re.compile("[\x00\ud800-\udfff]")
_LONGEST_NAME = 64
_CONTAINERS = (dict, list)
_LONGEST_INT64 = 20
_LONGEST_EMBEDDED = 399


class _OutOfRange:
    """Stands in the parsed tree where a number was that parsers do not agree on."""


_OUT_OF_RANGE = _OutOfRange()


class _NotANumberError(Exception):
    """``NaN`` or ``Infinity``: the body is read again, carefully, to say where it stands."""


def parse(raw: bytes) -> dict[str, object]:
    """The object in a request body. Raises :class:`Refused` for everything that JSON parsers may disagree about."""
    if raw.startswith(_UTF8_BOM) or b"\x00" in raw:
        raise Refused(Reason.INVALID_TEXT)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Refused(Reason.INVALID_TEXT) from None
    careful = _has_suspect_number(raw)
    try:
        value = _scan(text, _CAREFUL if careful else _FAST)
    except _NotANumberError:
        value, careful = _scan(text, _CAREFUL), True
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
        _check_depth(value, None)
    if careful and (path := _find(value, _is_out_of_range)) is not None:
        raise Refused(Reason.NUMBER_OUT_OF_RANGE, param=path)
    if type(value) is not dict:
        raise Refused(Reason.BODY_NOT_OBJECT, expected="object", got=kind(value))
    if b"\\u" in raw and _SUSPECT_ESCAPE.search(raw) and (path := _find(value, _is_bad_text)) is not None:
        raise Refused(Reason.INVALID_TEXT, param=path)
    return value


def check_embedded(text: str, param: str) -> None:
    """Check JSON that travels inside a string, such as the arguments of an earlier tool call.

    The replica reads it too, and forgives what is not JSON at all, since a model wrote it.
    """
    if text.count("{") + text.count("[") <= MAX_DEPTH and not _SUSPECT_EMBEDDED.search(text):
        return
    try:
        value = _EMBEDDED.decode(text)
    except RecursionError:
        raise Refused(Reason.NESTING_TOO_DEEP, param=param, limit=MAX_DEPTH) from None
    except ValueError:
        return
    _check_depth(value, param)
    if _find(value, _is_bad_text) is not None:
        raise Refused(Reason.INVALID_TEXT, param=param)
    if _find(value, _is_out_of_range) is not None:
        raise Refused(Reason.NUMBER_OUT_OF_RANGE, param=param)


def kind(value: object) -> str:
    """JSON's name for the type of a parsed value."""
    return _KINDS[type(value)]


def join(parent: str, name: str) -> str:
    """The path of a member, with a name that a client chose cut down to what may stand in an error."""
    if len(name) > _LONGEST_NAME or not name.isprintable():
        name = "".join(c if c.isprintable() else "?" for c in name[:_LONGEST_NAME])
    return f"{parent}.{name}" if parent else name


def _has_suspect_number(raw: bytes) -> bool:
    """Whether a number may be too large. Several times faster than one regular expression over the body."""
    digits = raw.translate(_DIGITS)
    return any(suspect in digits for suspect in _SUSPECT_NUMBERS)


def _scan(text: str, decoder: json.JSONDecoder) -> object:
    try:
        value: object = decoder.decode(text)
        return value
    except json.JSONDecodeError as error:
        raise Refused(Reason.INVALID_JSON, got=error.pos) from None
    except RecursionError:
        raise Refused(Reason.NESTING_TOO_DEEP, limit=MAX_DEPTH) from None


def _find(value: object, wrong: Callable[[object], bool]) -> str | None:
    """The path of the first wrong key or value below ``value``, built on the way back, since most searches fail."""
    if isinstance(value, dict):
        for name, item in value.items():
            if wrong(name) or wrong(item):
                return join("", name)
            if isinstance(item, _CONTAINERS) and (inner := _find(item, wrong)) is not None:
                return join("", name) + _below(inner)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if wrong(item):
                return f"[{index}]"
            if isinstance(item, _CONTAINERS) and (inner := _find(item, wrong)) is not None:
                return f"[{index}]" + _below(inner)
    return None


def _below(path: str) -> str:
    return path if path.startswith("[") else f".{path}"


def _is_out_of_range(value: object) -> bool:
    return value is _OUT_OF_RANGE


def _is_bad_text(value: object) -> bool:
    return isinstance(value, str) and _BAD_CHARACTER.search(value) is not None


def _check_depth(value: object, param: str | None) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = chain.from_iterable(map(_members, level))
        level = [node for node in inner if isinstance(node, _CONTAINERS)]
        if not level:
            return
    raise Refused(Reason.NESTING_TOO_DEEP, param=param, limit=MAX_DEPTH)


def _members(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        _refuse_duplicate(pairs)
    return members


def _refuse_duplicate(pairs: list[tuple[str, object]]) -> NoReturn:
    counts = Counter(name for name, _ in pairs)
    raise Refused(Reason.DUPLICATE_KEY, param=join("", counts.most_common(1)[0][0]))


def _constant(_: str) -> NoReturn:
    raise _NotANumberError


def _stand_in(_: str) -> _OutOfRange:
    return _OUT_OF_RANGE


def _integer(digits: str) -> int | _OutOfRange:
    if len(digits) < _SHORTEST_SUSPECT:
        return int(digits)
    # The length goes first: int() of a long run of digits takes quadratic time, and raises beyond 4,300.
    return _OUT_OF_RANGE if len(digits) > _LONGEST_INT64 or int(digits) not in INT64 else int(digits)


def _decimal(digits: str) -> float | _OutOfRange:
    number = float(digits)
    return number if math.isfinite(number) else _OUT_OF_RANGE


def _embedded_integer(digits: str) -> int | _OutOfRange:
    return 0 if len(digits) <= _LONGEST_EMBEDDED else _OUT_OF_RANGE


_KINDS = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"} | {
    type(None): "null",
    _OutOfRange: "number",
}
_FAST = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
_CAREFUL = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_stand_in, parse_int=_integer, parse_float=_decimal
)
_EMBEDDED = json.JSONDecoder(parse_int=_embedded_integer)
