"""When the tokens of a stream came, kept small while it runs and counted when it ends."""

from __future__ import annotations

from array import array
from itertools import accumulate, pairwise

_MICROSECONDS = 6


class Pace:
    """One arrival for each packet that held content, with the text lengths of the events in it."""

    __slots__ = ("_ends", "_lengths", "_times")

    def __init__(self) -> None:
        self._times = array("d")
        self._lengths = array("L")
        """Of every event's text, in bytes."""
        self._ends = array("L")
        """How many events there were when each arrival was over."""

    def event(self, length: int) -> None:
        """An event that bore content. It belongs to the arrival that :meth:`arrived` names next."""
        self._lengths.append(length)

    def arrived(self, now: float) -> None:
        """The packet is over, which was taken from the kernel at ``now``. Without new events it was no arrival."""
        if len(self._lengths) > (self._ends[-1] if self._ends else 0):
            self._times.append(now)
            self._ends.append(len(self._lengths))

    @property
    def events(self) -> int:
        return len(self._lengths)

    @property
    def first(self) -> float | None:
        """When the first content came."""
        return self._times[0] if self._times else None

    def counted(self, tokens: int) -> tuple[int, tuple[tuple[float, int], ...]]:
        """The tokens of the first arrival; of every later one, the seconds since the arrival before and its tokens.

        ``tokens`` is how many there were in all, as the service counted them, and what these add up to. An event
        counts for one token, and what they number more is spread over the events by the length of their texts, since
        an event that holds several tokens is longer. Tokens without text (the end of a sequence) are spread likewise.
        """
        if not self._times or tokens < 1:
            return 0, ()
        counts = self._counts(tokens)
        gaps, since = [], self._times[0]
        for now, count in zip(self._times[1:], counts[1:], strict=True):
            if count:
                gaps.append((round(now - since, _MICROSECONDS), count))
                since = now
        return counts[0], tuple(gaps)

    def _counts(self, tokens: int) -> list[int]:
        """Tokens of every arrival; at least one in the first."""
        by_event = shares(self._lengths, tokens)
        reached = [0, *accumulate(by_event)]
        return [reached[end] - reached[begin] for begin, end in pairwise([0, *self._ends])]


def shares(lengths: array[int], tokens: int) -> list[int]:
    """``tokens`` spread over events of these lengths; their sum is ``tokens``. The first has at least one."""
    least = 1 if tokens >= len(lengths) else 0
    spread = tokens - (len(lengths) if least else 1)
    if not spread and least:
        return [1] * len(lengths)
    whole = sum(lengths) or len(lengths)
    reached = [0, *((2 * spread * length + whole) // (2 * whole) for length in accumulate(lengths))]
    counts = [least + end - begin for begin, end in pairwise(reached)]
    counts[0] += 0 if least else 1
    counts[-1] += tokens - sum(counts)
    return counts
