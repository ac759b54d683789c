"""How long an organisation's answers are, and its prompts for their size: learned from what was served."""

from __future__ import annotations

PRIOR_TOKENS = 200.0
"""Before anything has ended: the mean answer of the Azure 2023 conversation trace has 211 tokens."""
EXPECTED_AT_MOST = 256
"""Of an answer, what a replica counts as outstanding at most: somewhat more than that mean."""
PRIOR_DENSITY = 200.0
"""Prompt tokens to compute in a thousand bytes of a request's body, before any was tokenised: 4 bytes are a token of
English, and some of a body is no prompt."""
MOST_ORGANISATIONS = 4096
_PACE = 0.05
_SHARED = ""


class Means:
    """Moving means by organisation; whoever has none yet is taken for like all the others together.

    The organisations heard of last are kept, so that memory is bounded.
    """

    def __init__(self, prior: float) -> None:
        self._means: dict[str, tuple[float, int]] = {_SHARED: (prior, 0)}

    def of(self, organisation: str) -> float:
        return (self._means.get(organisation) or self._means[_SHARED])[0]

    def learn(self, organisation: str, value: float) -> None:
        if organisation != _SHARED:
            self._blend(_SHARED, value)
        self._blend(organisation, value)
        if len(self._means) > MOST_ORGANISATIONS:
            del self._means[next(name for name in self._means if name != _SHARED)]

    def _blend(self, name: str, value: float) -> None:
        mean, count = self._means.get(name) or (self._means[_SHARED][0], 0)
        self._means.pop(name, None)  # and to the end: the first in the table is the one heard of longest ago
        # What was assumed at first counts as one.
        mean += max(_PACE, 1 / (count + 2)) * (value - mean)
        self._means[name] = (mean, count + 1)


class AnswerLengths(Means):
    """Tokens of an answer that ended by itself."""

    def __init__(self) -> None:
        super().__init__(PRIOR_TOKENS)

    def expected(self, organisation: str, at_most: int) -> int:
        """Tokens of the next answer, at least 1 and at most what the job allows."""
        return max(1, min(at_most, round(self.of(organisation))))
