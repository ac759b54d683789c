"""Bounds on a caller's JSON schema, before a replica compiles it into a grammar.

The walk is iterative and stops at the first bound it meets, so a hostile schema costs no more than an honest
one of the largest size. References stay inside the schema, end somewhere, and do not multiply: ten definitions
that each name the next one twice would write out to a thousand copies of the last.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter

from serving.errors import Reason, Refused
from serving.gateway.openai.checks import check_string, wrong_type, wrong_value
from serving.gateway.openai.grammars import regex_complaint
from serving.gateway.openai.limits import Limits
from serving.gateway.openai.strict_json import parse

MAX_DEPTH = 32
MAX_NODES = 5000
MAX_CHARACTERS = 64 << 10
MAX_ENUM = 1000
MAX_BOUND = 10_000
MAX_EXPANDED = 10_000

_ROOT = "#"
_PLACES = ("$defs", "definitions")
_ESCAPED = re.compile("[/~%]")
"""Parsers disagree on what a JSON pointer through such a name means."""


def check_schema(schema: object, param: str) -> None:
    """Check a schema; whatever is wrong inside it is reported under the one ``param`` that holds it."""
    if not isinstance(schema, dict):
        raise wrong_type(schema, param, "object")
    if _check_bounds(schema, param):
        _check_expansion(schema, param)


def check_schema_or_text(value: object, param: str, limits: Limits) -> None:
    """``structured_outputs.json`` takes the schema as an object or as a string of JSON."""
    schema = value
    if isinstance(value, str):
        check_string(value, param, MAX_CHARACTERS)
        try:
            schema = parse(value.encode())
        except Refused:
            raise wrong_value(param, "JSON Schema") from None
    check_schema(schema, param)


def _check_bounds(schema: dict[str, object], param: str) -> bool:
    """Check everything that can be seen from one node at a time, and say whether there are references to follow."""
    nodes = characters = 0
    with_references = False
    level: list[dict[str, object] | list[object]] = [schema]
    for _ in range(MAX_DEPTH):
        inner: list[dict[str, object] | list[object]] = []
        for node in level:
            nodes += len(node)
            if nodes > MAX_NODES:
                raise _too_complex(param, f"nodes <= {MAX_NODES}")
            if isinstance(node, dict):
                with_references = with_references or "$ref" in node
                for name, item in node.items():
                    characters += len(name)
                    if name in _KEYWORDS:
                        _KEYWORDS[name](name, item, param)
            for item in node.values() if isinstance(node, dict) else node:
                if isinstance(item, str):
                    characters += len(item)
                elif isinstance(item, (dict, list)):
                    inner.append(item)
            if characters > MAX_CHARACTERS:
                raise _too_complex(param, f"length <= {MAX_CHARACTERS}")
        level = inner
        if not level:
            return with_references
    raise _too_complex(param, f"depth <= {MAX_DEPTH}")


def _bound(name: str, value: object, param: str) -> None:
    if isinstance(value, int | float) and value > MAX_BOUND:
        raise _too_complex(param, f"{name} <= {MAX_BOUND}")


def _enum(name: str, value: object, param: str) -> None:
    if isinstance(value, list) and len(value) > MAX_ENUM:
        raise _too_complex(param, f"{name} <= {MAX_ENUM}")


def _dynamic(name: str, value: object, param: str) -> None:
    if isinstance(value, str):
        raise _too_complex(param, "$ref: #/$defs/...")


def _pattern(name: str, value: object, param: str) -> None:
    # Either one pattern, or an object whose names are patterns.
    for pattern in value if isinstance(value, dict) else [value]:
        complaint = regex_complaint(pattern) if isinstance(pattern, str) else None
        if complaint is not None:
            raise _too_complex(param, f"{name}: {complaint}")


_KEYWORDS: dict[str, Callable[[str, object, str], None]] = {
    **dict.fromkeys(("minItems", "maxItems", "minLength", "maxLength", "minContains", "maxContains"), _bound),
    **dict.fromkeys(("minProperties", "maxProperties"), _bound),
    **dict.fromkeys(("$dynamicRef", "$recursiveRef"), _dynamic),
    **dict.fromkeys(("pattern", "patternProperties"), _pattern),
    "enum": _enum,
}


def _check_expansion(schema: dict[str, object], param: str) -> None:
    definitions = {
        f"#/{place}/{name}": body
        for place in _PLACES
        if isinstance(bodies := schema.get(place), dict)
        for name, body in bodies.items()
    }
    if any(_ESCAPED.search(name.split("/", 2)[2]) for name in definitions):
        raise _too_complex(param, "$defs: no / ~ %")
    rest = [item for name, item in schema.items() if name not in _PLACES or not isinstance(item, dict)]
    refs = {_ROOT: _refs(rest)} | {name: _refs(body) for name, body in definitions.items()}
    if isinstance(schema.get("$ref"), str):
        refs[_ROOT].append(str(schema["$ref"]))
    if any(ref not in definitions for found in refs.values() for ref in found):
        raise _too_complex(param, "$ref: #/$defs/...")
    sizes: dict[str, int] = {}
    try:
        for unit in TopologicalSorter(refs).static_order():
            sizes[unit] = 1 + sum(sizes[ref] for ref in refs[unit])
    except CycleError:
        raise _too_complex(param, "$ref: #/$defs/... (...)") from None
    if sizes[_ROOT] > MAX_EXPANDED:
        raise _too_complex(param, f"$ref <= {MAX_EXPANDED}")


def _refs(body: object) -> list[str]:
    found: list[str] = []
    stack = [body]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            ref = node.get("$ref")
            if isinstance(ref, str):
                found.append(ref)
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return found


def _too_complex(param: str, expected: str) -> Refused:
    return Refused(Reason.SCHEMA_TOO_COMPLEX, param=param, expected=expected)
