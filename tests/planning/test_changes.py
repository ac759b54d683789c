from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from serving.planning.changes import changes

LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 1.5]) | st.text("ab", max_size=2)
VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1), inner, max_size=3)
)
POLICIES = st.dictionaries(st.sampled_from(["slo", "gateway", "residency"]), VALUES)


@given(POLICIES, POLICIES)
def test_there_are_changes_exactly_where_two_policies_differ(
    one: dict[str, JsonValue], other: dict[str, JsonValue]
) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (changes(one, other) == ()) is same


@given(POLICIES, POLICIES)
def test_the_way_back_is_the_same_way(one: dict[str, JsonValue], other: dict[str, JsonValue]) -> None:
    there = {(each.path, repr(each.before), repr(each.after)) for each in changes(one, other)}
    back = {(each.path, repr(each.after), repr(each.before)) for each in changes(other, one)}
    assert there == back


def test_true_is_not_one() -> None:
    assert [each.path for each in changes({"a": True, "b": 1}, {"a": 1, "b": 1.0})] == ["a", "b"]
