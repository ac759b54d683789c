"""How long an organisation's answers are, learned from those that ended."""

from __future__ import annotations

PRIOR_TOKENS = 200.0
"""Before anything has ended: the mean answer of the Azure 2023 conversation trace has 211 tokens."""
EXPECTED_AT_MOST = 256
"""Of an answer, what a replica counts as outstanding at most: somewhat more than that mean."""
MOST_ORGANISATIONS = 4096
_PACE = 0.05
_SHARED = ""


class AnswerLengths:
    """Moving means by organisation; whoever has none yet is taken for like all the others together.

    The organisations heard of last are kept, so that memory is bounded.
    """

    def __init__(self) -> None:
        self._means: dict[str, tuple[float, int]] = {_SHARED: (PRIOR_TOKENS, 0)}

    def expected(self, organisation: str, at_most: int) -> int:
        """Tokens of the next answer, at least 1 and at most what the job allows."""
        mean, _ = self._means.get(organisation) or self._means[_SHARED]
        return max(1, min(at_most, round(mean)))

    def learn(self, organisation: str, tokens: float) -> None:
        """An answer ended by itself after so many tokens."""
        if organisation != _SHARED:
            self._blend(_SHARED, tokens)
        self._blend(organisation, tokens)
        if len(self._means) > MOST_ORGANISATIONS:
            del self._means[next(name for name in self._means if name != _SHARED)]

    def _blend(self, name: str, tokens: float) -> None:
        mean, count = self._means.get(name) or (self._means[_SHARED][0], 0)
        self._means.pop(name, None)  # and to the end: the first in the table is the one heard of longest ago
        # What was assumed at first counts as one answer.
        mean += max(_PACE, 1 / (count + 2)) * (tokens - mean)
        self._means[name] = (mean, count + 1)
