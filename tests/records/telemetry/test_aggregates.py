"""Aggregates of few organisations are not told, nor can they be computed from those that are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.records.telemetry.fairness import WINDOW_S, Fairness
from serving.records.telemetry.suppression import Aggregate, told, total

TABLES = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(Aggregate, st.floats(0, 1e6), st.integers(0, 20)),
    min_size=1,
)


@given(TABLES, st.integers(2, 8))
def test_nothing_of_fewer_than_the_threshold_can_be_had(table: dict[str, Aggregate], threshold: int) -> None:
    shown = told(table, threshold)
    hidden = [cell for name, cell in table.items() if name not in shown]
    for name in shown:
        assert table[name].contributors == 0 or table[name].contributors >= threshold
    if total(table, threshold) is not None and hidden:
        # What the total less the cells shown is the sum of.
        assert len(hidden) > 1 or len(shown) == sum(not cell.contributors for cell in table.values())
        assert sum(cell.contributors for cell in hidden) >= threshold


def test_one_small_cell_takes_the_smallest_other_along() -> None:
    table = {"chat": Aggregate(9, 2), "completions": Aggregate(50, 6), "responses": Aggregate(90, 30)}
    assert told(table, 5) == {"responses": 90}


def test_a_table_of_large_cells_is_told_whole() -> None:
    table = {"chat": Aggregate(9, 5), "completions": Aggregate(50, 6), "responses": Aggregate(0, 0)}
    assert told(table, 5) == {"chat": 9, "completions": 50, "responses": 0}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_fairness_is_jain_s_index_over_weighted_tokens() -> None:
    fairness = Fairness(3, Clock())
    for organisation, tokens, weight in (("a", 100, 1.0), ("b", 200, 2.0), ("c", 400, 1.0)):
        fairness.served(organisation, tokens, weight)
    figures = fairness.figures()
    assert figures["organisations"] == 3
    assert figures["index"] == (100 + 100 + 400) ** 2 / (3 * (100**2 + 100**2 + 400**2))
    assert figures["top_share"] == 400 / 600


def test_below_the_threshold_there_is_no_figure() -> None:
    fairness = Fairness(3, Clock())
    assert fairness.figures() == {}
    fairness.served("a", 100, 1.0)
    fairness.served("b", 100, 1.0)
    assert fairness.figures() == {}


def test_what_was_long_ago_counts_no_more() -> None:
    clock = Clock()
    fairness = Fairness(2, clock)
    for organisation in "ab":
        fairness.served(organisation, 100, 1.0)
    clock.now = 1.5 * WINDOW_S
    assert fairness.figures()["organisations"] == 2
    clock.now = 2.5 * WINDOW_S
    assert fairness.figures() == {}
