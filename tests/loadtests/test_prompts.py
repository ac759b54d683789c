"""Prompts have the length that was asked for, and share nothing that was not meant to be shared."""

from __future__ import annotations

import random
from itertools import pairwise, takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.client.prompts import WORDS, shared, text

LENGTHS = (10, 11, 16, 37, 64, 100, 250, 500, 999, 2000)
lengths = st.integers(1, 2000)
seeds = st.integers(0, 2**60)


def tokens_of(prompt: str) -> int:
    """Words and full stops: what a vocabulary that holds every word makes of it."""
    return len(prompt.replace(".", " .").split())


def common_words(one: str, other: str) -> int:
    pairs = zip(one.split(), other.split(), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


@given(lengths, seeds)
def test_a_prompt_has_as_many_words_and_stops_as_tokens_were_asked_for(tokens: int, seed: int) -> None:
    assert tokens_of(text(tokens, seed)) == tokens
    assert tokens_of(shared(tokens, seed)) == tokens


@given(lengths, seeds)
def test_the_same_arguments_make_the_same_prompt(tokens: int, seed: int) -> None:
    assert text(tokens, seed) == text(tokens, seed)
    assert shared(tokens, seed) == shared(tokens, seed)


def test_a_prompt_is_the_same_on_every_machine() -> None:
    assert text(8, 1) == "Or special laugh told busy knew cause."


def test_nothing_asked_for_is_nothing() -> None:
    assert text(0, 1) == shared(0, 1) == shared(-3, 1) == ""


def test_different_seeds_part_before_a_prefix_cache_could_gain_from_them() -> None:
    found = sorted(text(60, seed) for seed in range(3000))
    longest = max(common_words(one, other) for one, other in pairwise(found))
    assert longest < 8, "two of 3,000 prompts share half a cache block"


@given(st.integers(2, 500), st.integers(2, 500), seeds)
@settings(max_examples=50)
def test_a_shorter_shared_beginning_is_a_beginning_of_the_longer(one: int, other: int, prefix: int) -> None:
    short, long = sorted((shared(one, prefix), shared(other, prefix)), key=len)
    assert long.startswith(short.removesuffix(".").rstrip())


def test_what_is_shared_is_not_what_is_drawn() -> None:
    assert shared(50, 7) != text(50, 7)
    assert shared(50, 7) != shared(50, 8)


def test_prompts_are_sentences() -> None:
    sentences = text(400, 3).removesuffix(".").split(". ")
    assert all(one[0].isupper() and one[1:].islower() for one in sentences)
    assert len(sentences) > 20


def test_no_word_is_there_twice() -> None:
    assert len(set(WORDS)) == len(WORDS)


@pytest.mark.engine
def test_the_bundled_model_counts_what_was_asked_for() -> None:
    from tokenizers import Tokenizer

    from serving.settings import Settings

    found = next(Settings.from_environment().models.glob("*/tokenizer.json"), None)
    if found is None:
        pytest.skip("no model is prepared")
    tokenizer = Tokenizer.from_file(str(found))
    rng = random.Random(1)
    for tokens in LENGTHS:
        for make in (text, shared):
            counted = len(tokenizer.encode(make(tokens, rng.getrandbits(40)), add_special_tokens=False).ids)
            assert abs(counted - tokens) <= 0.1 * tokens, f"{counted} tokens instead of {tokens}"
