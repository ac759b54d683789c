"""Whatever the bytes are: a refusal or a prompt, and what is accepted reads the same to every parser."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from serving.errors import Reason, Refused
from serving.gateway.openai import read
from serving.gateway.openai.grammars import regex_complaint
from serving.gateway.openai.read import SHAPES
from serving.gateway.openai.strict_json import parse
from serving.types import Endpoint
from tests.gateway.openai.bodies import BASES, CORPUS, LIMITS, ODD, encode, mutations, refusal

ENDPOINTS = st.sampled_from(list(Endpoint))
TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.sampled_from(["user", "text", "function"])
KEYS = TEXTS | st.sampled_from(
    ["role", "content", "type", "text", "function", "name", "url", "image_url", "$ref", "tools"]
)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))


def survives(endpoint: Endpoint, raw: bytes) -> None:
    """Read it, and where it is accepted, read it with other parsers too."""
    try:
        prompt = read(endpoint, raw, LIMITS)
    except Refused as error:
        refused = error
    else:
        assert prompt.body is raw
        assert prompt.fields == json.loads(raw) == orjson.loads(raw) == from_json(raw)
        return
    assert refused.param is None or refused.param.isprintable()
    assert all(type(fact) in (str, int, float) for fact in refused.facts.values())


@given(ENDPOINTS, st.binary(max_size=200))
def test_any_bytes(endpoint: Endpoint, raw: bytes) -> None:
    survives(endpoint, raw)


@given(ENDPOINTS, JSON)
def test_any_json(endpoint: Endpoint, value: object) -> None:
    survives(endpoint, encode(value))


@settings(max_examples=600)
@given(st.data(), ENDPOINTS, JSON)
def test_any_value_of_a_known_field(data: st.DataObject, endpoint: Endpoint, value: object) -> None:
    name = data.draw(st.sampled_from(sorted(SHAPES[endpoint].fields)))
    survives(endpoint, encode(BASES[endpoint] | {name: value}))


@settings(max_examples=400)
@given(st.data(), st.sampled_from(CORPUS), JSON)
def test_any_value_in_a_place_of_a_valid_body(
    data: st.DataObject, case: tuple[Endpoint, str, Any], value: object
) -> None:
    endpoint, _, body = case
    body = json.loads(encode(body))
    node: Any = body
    while True:
        key = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
        inner = node[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        node = inner
    node[key] = value
    survives(endpoint, encode(body))


@pytest.mark.parametrize(("endpoint", "body"), [pytest.param(e, b, id=name) for e, name, b in CORPUS])
def test_each_value_replaced(endpoint: Endpoint, body: dict[str, Any]) -> None:
    for changed in mutations(body):
        survives(endpoint, encode(changed))


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_each_field_odd(endpoint: Endpoint) -> None:
    for name in SHAPES[endpoint].fields:
        for value in ODD:
            survives(endpoint, encode(BASES[endpoint] | {name: value}))


@settings(max_examples=400)
@given(st.sampled_from(CORPUS), st.binary(max_size=3), st.integers(0, 10_000), st.integers(0, 3))
def test_a_valid_body_with_bytes_changed(case: tuple[Endpoint, str, Any], new: bytes, at: int, cut: int) -> None:
    endpoint, _, body = case
    raw = encode(body)
    at %= len(raw)
    survives(endpoint, raw[:at] + new + raw[at + cut :])


@given(st.sampled_from(CORPUS), st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=70), JSON)
def test_an_unknown_name_is_refused_by_that_name(case: tuple[Endpoint, str, Any], name: str, value: object) -> None:
    endpoint, _, body = case
    if name in SHAPES[endpoint].fields:
        return
    try:
        parse(encode({name: value}))
    except Refused:
        return
    refused = refusal(endpoint, encode({name: value} | body))
    assert (refused.reason, refused.param) == (Reason.UNKNOWN_PARAMETER, name[:64])


@settings(max_examples=500)
@given(st.text(st.sampled_from("ab(){}[]?*+|\\^$.:<=!P0123456789,-"), max_size=40))
def test_any_regex_is_measured(pattern: str) -> None:
    complaint = regex_complaint(pattern)
    assert complaint is None or len(complaint) < 64


@pytest.mark.parametrize("pattern", ["(" * 1024, "[" * 1024, "(?:" * 341, "\\" * 1023, "{" * 1024, "a{1}" * 256])
def test_long_hostile_patterns_are_quick(pattern: str) -> None:
    for _ in range(200):
        regex_complaint(pattern)
