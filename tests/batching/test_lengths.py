"""How long answers are expected to be."""

from __future__ import annotations

import pytest

from serving.batching.lengths import MOST_ORGANISATIONS, PRIOR_TOKENS, AnswerLengths


def test_each_organisation_is_expected_to_go_on_as_it_did() -> None:
    lengths = AnswerLengths()
    for _ in range(100):
        lengths.learn("brief", 10)
        lengths.learn("wordy", 900)
    assert lengths.expected("brief", 5000) == pytest.approx(10, abs=1)
    assert lengths.expected("wordy", 5000) == pytest.approx(900, rel=0.02)
    assert lengths.expected("wordy", 300) == 300


def test_a_stranger_is_taken_for_like_the_others() -> None:
    lengths = AnswerLengths()
    assert lengths.expected("stranger", 5000) == PRIOR_TOKENS
    for _ in range(200):
        lengths.learn("brief", 10)
    assert lengths.expected("stranger", 5000) == pytest.approx(10, abs=1)


def test_one_answer_says_something_and_not_everything() -> None:
    lengths = AnswerLengths()
    lengths.learn("new", 1000)
    assert PRIOR_TOKENS < lengths.expected("new", 5000) < 1000


def test_memory_is_bounded_and_keeps_whom_it_heard_of_last() -> None:
    lengths = AnswerLengths()
    for number in range(MOST_ORGANISATIONS + 2):
        lengths.learn("regular", 30)
        lengths.learn(f"guest{number}", 700)
    assert len(lengths._means) <= MOST_ORGANISATIONS
    assert lengths.expected("regular", 5000) == pytest.approx(30, abs=3)
