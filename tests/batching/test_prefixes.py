"""The guess at what the engine's prefix cache holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.batching.prefixes import Prefixes

BLOCK = 16
tokens = st.lists(st.integers(0, 3), max_size=6 * BLOCK)


@given(tokens, tokens)
def test_what_was_served_is_found_as_far_as_it_is_shared(one: list[int], other: list[int]) -> None:
    prefixes = Prefixes(10**6, BLOCK)
    prefixes.add("ee", one)
    shared = next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    found = prefixes.cached("ee", other)
    assert found == min(shared // BLOCK * BLOCK, max(0, len(other) - 1))


def test_organisations_share_nothing() -> None:
    prefixes = Prefixes(10**6, BLOCK)
    prefixes.add("acme", [1] * 64)
    assert prefixes.cached("acme", [1] * 64) == 63
    assert prefixes.cached("other", [1] * 64) == 0


def test_the_least_recently_used_goes_first() -> None:
    prefixes = Prefixes(4 * BLOCK, BLOCK)
    prefixes.add("ee", [1] * 2 * BLOCK)
    prefixes.add("ee", [2] * 2 * BLOCK)
    prefixes.add("ee", [1] * 2 * BLOCK)
    prefixes.add("ee", [3] * 2 * BLOCK)
    assert prefixes.cached("ee", [1] * 2 * BLOCK)
    assert not prefixes.cached("ee", [2] * 2 * BLOCK)
    assert len(prefixes) == 4


def test_an_engine_without_a_prefix_cache_holds_nothing() -> None:
    prefixes = Prefixes(0, BLOCK)
    prefixes.add("ee", [1] * 2 * BLOCK)
    assert not prefixes.cached("ee", [1] * 2 * BLOCK)
