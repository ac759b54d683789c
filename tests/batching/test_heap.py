"""The priority queue, beside a sorted list that needs no cunning."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.batching.heap import PriorityQueue

moves = st.lists(st.tuples(st.sampled_from(["put", "discard", "pop"]), st.integers(0, 5), st.integers(0, 3)))


@given(moves)
def test_the_least_comes_first_whatever_was_moved_or_removed(steps: list[tuple[str, int, int]]) -> None:
    queue: PriorityQueue[int] = PriorityQueue()
    plain: dict[int, tuple[int, int]] = {}
    for number, (move, item, key) in enumerate(steps):
        if move == "put":
            queue.put(item, key)
            plain[item] = (key, number)
        elif move == "discard":
            queue.discard(item)
            plain.pop(item, None)
        elif top := queue.pop():
            assert top[1] == min(plain, key=lambda one: plain[one])
            del plain[top[1]]
        expected = min(plain, key=lambda one: plain[one], default=None)
        assert queue.least() == (None if expected is None else (plain[expected][0], expected))
        assert len(queue) == len(plain)
        assert (item in queue) == (item in plain)


def test_what_was_moved_or_removed_takes_no_memory_in_the_end() -> None:
    queue: PriorityQueue[int] = PriorityQueue()
    queue.put(-1, -1.0)  # stays in front, so that nothing behind it is ever cleared by coming up
    for number in range(10_000):
        queue.put(number % 10, number)
        queue.put(number + 100, number)
        queue.discard(number + 100)
    assert len(queue._heap) < 200
