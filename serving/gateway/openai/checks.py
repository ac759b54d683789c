"""What the tables of fields are made of: small checks, each of which passes a value or raises :class:`Refused`.

A check gets the value, its path in the body and the limits. Values come from :mod:`strict_json`, so their types
are exactly ``dict``, ``list``, ``str``, ``int``, ``float``, ``bool`` and ``None``; ``type(x) is int`` leaves
``true`` out, which ``isinstance`` would let in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from serving.errors import Reason, Refused
from serving.gateway.openai.limits import Limits
from serving.gateway.openai.strict_json import join, kind

Check = Callable[[object, str, Limits], object]
"""Value, path and limits. What it returns, if anything, is a convenience and says nothing."""
Table = Mapping[str, Check]
"""The fields of an object by name. A name that is not in the table is unknown, and refused."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The body of one endpoint."""

    fields: Table
    required: tuple[str, ...]
    check_together: Callable[[dict[str, object], Limits], None]
    """The rules that take more than one field."""
    prompt: str
    """The field that holds what the model reads."""


def wrong_type(value: object, param: str, expected: str) -> Refused:
    return Refused(Reason.INVALID_TYPE, param=param, expected=expected, got=kind(value))


def wrong_value(param: str, expected: str) -> Refused:
    """``expected`` is in symbols that need no translation; what came instead may be a prompt and is not repeated."""
    return Refused(Reason.INVALID_VALUE, param=param, expected=expected)


def check_members(value: object, param: str, table: Table, limits: Limits, *required: str) -> dict[str, object]:
    """Check an object against its table, and hand it back typed."""
    if not isinstance(value, dict):
        raise wrong_type(value, param, "object")
    for name in required:
        if name not in value:
            raise Refused(Reason.MISSING_REQUIRED_PARAMETER, param=join(param, name))
    path = f"{param}." if param else ""
    for name, item in value.items():
        check = table.get(name)
        if check is None:
            raise Refused(Reason.UNKNOWN_PARAMETER, param=join(param, name))
        check(item, path + name, limits)
    return value


def check_integer(value: object, param: str, low: int, high: int) -> int:
    if type(value) is not int:
        raise wrong_type(value, param, "integer")
    if value < low:
        raise Refused(Reason.INTEGER_BELOW_MIN_VALUE, param=param, limit=low, got=value)
    if value > high:
        raise Refused(Reason.INTEGER_ABOVE_MAX_VALUE, param=param, limit=high, got=value)
    return value


def check_string(value: object, param: str, longest: int | None = None, *, empty: bool = False) -> str:
    if type(value) is not str:
        raise wrong_type(value, param, "string")
    if not value and not empty:
        raise Refused(Reason.EMPTY_STRING, param=param)
    if longest is not None and len(value) > longest:
        raise Refused(Reason.STRING_TOO_LONG, param=param, limit=longest, got=len(value))
    return value


def check_array(value: object, param: str, longest: int | None = None, *, empty: bool = False) -> list[object]:
    if not isinstance(value, list):
        raise wrong_type(value, param, "array")
    if not value and not empty:
        raise Refused(Reason.EMPTY_ARRAY, param=param)
    if longest is not None and len(value) > longest:
        raise Refused(Reason.ARRAY_TOO_LONG, param=param, limit=longest, got=len(value))
    return value


def integer(low: int, high: int) -> Check:
    return lambda value, param, limits: check_integer(value, param, low, high)


def string(longest: int | None = None, *, empty: bool = False) -> Check:
    return lambda value, param, limits: check_string(value, param, longest, empty=empty)


def number(low: float, high: float) -> Check:
    def check(value: object, param: str, limits: Limits) -> None:
        if type(value) is not int and type(value) is not float:
            raise wrong_type(value, param, "number")
        if value < low:
            raise Refused(Reason.DECIMAL_BELOW_MIN_VALUE, param=param, limit=low, got=value)
        if value > high:
            raise Refused(Reason.DECIMAL_ABOVE_MAX_VALUE, param=param, limit=high, got=value)

    return check


def boolean(value: object, param: str, limits: Limits) -> None:
    if type(value) is not bool:
        raise wrong_type(value, param, "boolean")


def one_of(*choices: str) -> Check:
    known = frozenset(choices)
    expected = " | ".join(choices)

    def check(value: object, param: str, limits: Limits) -> None:
        if type(value) is not str:
            raise wrong_type(value, param, "string")
        if value not in known:
            raise wrong_value(param, expected)

    return check


def array(item: Check, longest: int, *, empty: bool = True) -> Check:
    def check(value: object, param: str, limits: Limits) -> None:
        for index, element in enumerate(check_array(value, param, longest, empty=empty)):
            item(element, f"{param}[{index}]", limits)

    return check


def members(table: Table, *required: str) -> Check:
    return lambda value, param, limits: check_members(value, param, table, limits, *required)


def nullable(check: Check) -> Check:
    return lambda value, param, limits: None if value is None else check(value, param, limits)


def unsupported(value: object, param: str, limits: Limits) -> None:
    """A field that OpenAI knows and a replica cannot honour. Null asks for nothing."""
    if value is not None:
        raise Refused(Reason.UNSUPPORTED_PARAMETER, param=param)


def switched_off(value: object, param: str, limits: Limits) -> None:
    """A switch that OpenAI knows and that a replica has no other end for."""
    boolean(value, param, limits)
    if value:
        raise Refused(Reason.UNSUPPORTED_PARAMETER, param=param)
