"""What travels from the front of an engine to the scheduler inside it, and under which names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from serving.batching.jobs import Account

CONFIG = "domicile"
"""Key of :class:`Orders` in vLLM's ``additional_config``."""

EXTRA = "domicile"
"""Key of :class:`Told` in a request's ``extra_args``."""

STEP_SHARE = 0.9
"""Of the inter-token promise, what a step may take: the rest is for what is between steps, and for misjudging them."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What holds for an engine's whole life."""

    step_s: float = 0.1
    """The longest step where somebody is about who was promised something: a newcomer waits for its end."""

    @classmethod
    def keeping(cls, inter_token_s: float) -> Self:
        """For a promise about the mean time between tokens."""
        return cls(step_s=STEP_SHARE * inter_token_s)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        return cls(**config)

    def config(self) -> dict[str, Any]:
        """JSON for ``additional_config``."""
        return {CONFIG: asdict(self)}


@dataclass(frozen=True, slots=True)
class Told:
    """What the scheduler is told of a request, from its claim."""

    organisation: str = ""
    batch: bool = False
    share: float = 1.0
    """Effective weight, as of :attr:`serving.batching.jobs.Job.share`."""
    step_s: float = math.inf
    """The longest step that keeps its inter-token promise."""
    first_token_by: float = math.inf
    """By ``time.monotonic()``, which the processes of a machine share."""

    @classmethod
    def of(cls, extra: Mapping[str, Any]) -> Self:
        return cls(**extra)

    @property
    def account(self) -> Account:
        return Account(self.organisation, self.batch)

    def extra(self) -> dict[str, Any]:
        """For a request's ``extra_args``."""
        return {EXTRA: asdict(self)}
