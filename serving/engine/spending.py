"""What the newest requests have cost an engine, for whoever has to account for an answer that was cut off.

A whole answer tells its own usage. One whose client left does not, and then only the engine knows.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.types import Usage

KEPT = 4096


@dataclass(slots=True)
class Cost:
    """Tokens of one request so far. Whoever generates for it counts here."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


class Spending:
    """Costs by request, the newest :data:`KEPT` of them."""

    def __init__(self) -> None:
        self._costs: dict[str, Cost] = {}

    def begun(self, request_id: str, prompt_tokens: int) -> Cost:
        """The request's cost, to which a prompt was just added: one may have several.

        Args:
            request_id: of the claim. What follows its dot tells apart the attempts and questions of one request.
        """
        cost = self._costs.setdefault(_stem(request_id), Cost())
        cost.prompt += prompt_tokens
        if len(self._costs) > KEPT:
            del self._costs[next(iter(self._costs))]
        return cost

    def of(self, request_id: str) -> Usage | None:
        cost = self._costs.get(_stem(request_id))
        return None if cost is None else Usage(cost.prompt, cost.completion, min(cost.cached, cost.prompt))


def _stem(request_id: str) -> str:
    return request_id.partition(".")[0]
