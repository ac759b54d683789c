"""Schemas that no engine should ever compile."""

from __future__ import annotations


def deep(depth: int) -> dict[str, object]:
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def doubling(levels: int) -> dict[str, object]:
    definitions = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": definitions | {f"d{levels}": {"type": "string"}}}


BAD_SCHEMAS = {
    "deep": deep(40),
    "wide": {"properties": {f"p{i}": {"type": "string"} for i in range(5001)}},
    "long": {"description": "x" * 70_000},
    "enum": {"enum": list(range(1001))},
    "self": {"properties": {"x": {"$ref": "#"}}},
    "recursive": {"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}},
    "doubling": doubling(20),
    "remote": {"$ref": "http://169.254.169.254/schema"},
    "file": {"$ref": "file:///etc/passwd"},
    "missing": {"$ref": "#/$defs/nowhere"},
    "pointer": {"$ref": "#/$defs/a/b", "$defs": {"a/b": {}, "a": {"b": {}}}},
    "definitions as a list": {"$defs": [{"$ref": "http://x"}]},
    "dynamic": {"$dynamicRef": "#x"},
    "repeated": {"type": "array", "minItems": 10**6},
    "long string": {"maxLength": 10**9},
    "pattern": {"pattern": "(a{100}){200}"},
    "pattern of names": {"patternProperties": {"(?=x)": {}}},
}
