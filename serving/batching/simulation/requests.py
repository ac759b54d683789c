"""A request from when it comes to its one end."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from serving.batching.jobs import BATCH_SHARE, Account
from serving.batching.lengths import EXPECTED_AT_MOST
from serving.batching.orders import Orders
from serving.batching.simulation.lengths import Length
from serving.types import ServiceClass
from tenants.country import Slo

UNAVAILABLE = "unavailable"
"""Refused since no replica of the country is there. The other reasons are :class:`serving.batching.jobs.Reason`."""


class Ending(StrEnum):
    """What became of a request that was not refused."""

    SERVED = "served"
    EXPIRED = "expired"
    """It was let in, and given up when its promise, or its deadline, had passed."""
    FAILED = "failed"
    """Its replica died, and nobody could go on with it."""


@dataclass(frozen=True, slots=True)
class Customer:
    """An organisation, and what it was promised."""

    organisation: str
    service_class: ServiceClass
    weight: float
    promise: Slo

    @property
    def account(self) -> Account:
        return Account(self.organisation, self.service_class is ServiceClass.BATCH)

    @property
    def share(self) -> float:
        """Its effective weight, as of :attr:`serving.batching.jobs.Job.share`."""
        return self.weight * BATCH_SHARE if self.account.batch else self.weight

    @property
    def step_s(self) -> float:
        """The longest step that keeps its inter-token promise."""
        return Orders.keeping(self.promise.inter_token_s).step_s


@dataclass(slots=True, eq=False)
class Request:
    """One request. Tokens are counted over all replicas that had it, unless said otherwise."""

    id: str
    customer: Customer
    account: Account
    length: Length
    arrived: float
    deadline: float
    affinity: int
    """Where its beginning is at home: which replica, modulo how many there are."""
    path_s: float = 0.0
    """What the way to the replica and back adds to its first token."""
    user: int = -1
    """Who asks again when it has ended, in a closed loop."""

    prefilled: int = 0
    answered: int = 0
    first_token: float | None = None
    ended: float | None = None
    ending: str = ""
    """An :class:`Ending`, or why it was refused; empty until then."""
    tried: set[int] = field(default_factory=set)
    """Serials of the replicas it was offered to."""
    lost: int = 0
    """Replicas that died under it."""
    expired: bool = False
    """Whether a replica let it in and gave it up."""

    prefill_left: int = 0
    """At the present replica, as all that follows."""
    share: float = 1.0
    step_s: float = 0.0
    first_token_by: float = 0.0
    context_offset: int = 0
    """What is in the KV cache before a decode, less the answer so far."""
    began: float = 0.0
    """When it began to decode..."""
    began_at: int = 0
    """...with so many answer tokens."""
    told: int = 0
    """Answer tokens that the front has heard of."""

    def enter(self, first_token_by: float, share: float) -> None:
        """A replica takes it, with an empty cache. What was answered elsewhere is now part of the prompt."""
        self.prefill_left = self.prompt_tokens
        self.context_offset = self.length.prompt - 1
        self.first_token_by = first_token_by
        self.share = share
        self.step_s = self.customer.step_s
        self.told = self.answered

    @property
    def prompt_tokens(self) -> int:
        """What a replica that takes it now has to prefill."""
        return self.length.prompt + self.answered

    @property
    def outstanding_tokens(self) -> int:
        """What choosing a replica counts it for while it is there."""
        return self.length.prompt + min(self.length.asked, EXPECTED_AT_MOST)

    @property
    def first_token_s(self) -> float | None:
        """Until its caller had the first token; ``None`` where there was none."""
        return None if self.first_token is None else self.first_token - self.arrived + self.path_s

    @property
    def inter_token_s(self) -> float | None:
        """Mean time between its tokens; ``None`` before the end and where there is only one."""
        if self.first_token is None or self.ended is None or self.answered < 2:
            return None
        return (self.ended - self.first_token) / (self.answered - 1)

    @property
    def kept(self) -> bool:
        """Whether it was served, with its first token and on the mean its further ones, within the promise."""
        promise, first = self.customer.promise, self.first_token_s
        if self.ending != Ending.SERVED or first is None:
            return False
        return first <= promise.first_token_s and (self.inter_token_s or 0.0) <= promise.inter_token_s
