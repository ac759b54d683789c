"""What waits: by account, in the order in which an account's own jobs go, with totals that are never summed anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from serving.batching.heap import PriorityQueue
from serving.batching.jobs import Account, Job, Speed
from serving.batching.ledger import virtual_tokens

PATIENCE_S = 60.0
"""No job is overtaken by its own account's jobs that came so much later, whatever they were promised."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A job that was let in, and how far it has come."""

    job: Job
    account: Account
    share: float
    prefill_left: int
    """Prompt tokens to compute before the first token."""
    answer_left: int
    """Answer tokens expected yet, of all its streams."""
    start_by: float
    """When its first token is too late."""
    answer_served: int = 0

    @classmethod
    def of(cls, job: Job, answer_tokens: int) -> Ticket:
        """A ticket for a job each of whose answers is expected to have so many tokens."""
        return cls(job, job.account, job.share, job.prefill_tokens, answer_tokens * job.streams, job.start_by)

    @property
    def pledge(self) -> float:
        """What it is expected to cost yet, in the ledger's virtual tokens."""
        return virtual_tokens(self.prefill_left, self.answer_left, self.share)

    def alone_s(self, speed: Speed) -> float:
        """Time to the first token on an idle engine."""
        return speed.step_s + self.prefill_left * speed.prefill_s

    def latest_start(self, speed: Speed) -> float:
        """After this not even an idle engine keeps its promise."""
        return self.start_by - speed.step_s - self.prefill_left * speed.prefill_s

    @property
    def turn(self) -> float:
        """Its place among its account's own."""
        return min(self.start_by, self.job.arrived + PATIENCE_S)


@dataclass(slots=True)
class Work:
    """A sum over jobs."""

    prefill: int = 0
    """Prompt tokens to compute."""
    answer: int = 0
    """Answer tokens expected."""
    streams: int = 0
    jobs: int = 0

    def add(self, ticket: Ticket, sign: int = 1) -> None:
        self.prefill += sign * ticket.prefill_left
        self.answer += sign * ticket.answer_left
        self.streams += sign * ticket.job.streams
        self.jobs += sign

    def seconds(self, speed: Speed) -> float:
        """Engine time it takes."""
        return self.prefill * speed.prefill_s + self.answer * speed.answer_s


NO_WORK = Work()
"""For reading only."""


class _Line:
    """One account's waiting jobs."""

    __slots__ = ("queue", "share", "work")

    def __init__(self) -> None:
        self.queue: PriorityQueue[Ticket] = PriorityQueue()
        self.work = Work()
        self.share = 0.0


class Backlog:
    """All waiting jobs."""

    def __init__(self) -> None:
        self.work = Work()
        """Of all of them."""
        self.shares = 0.0
        """Sum of the shares of the accounts that have something waiting."""
        self._lines: dict[Account, _Line] = {}
        self._ends: PriorityQueue[Ticket] = PriorityQueue()

    def add(self, ticket: Ticket, speed: Speed) -> None:
        line = self._lines.get(ticket.account)
        if line is None:
            line = self._lines[ticket.account] = _Line()
        self.shares += ticket.share - line.share
        line.share = ticket.share
        line.queue.put(ticket, ticket.turn)
        line.work.add(ticket)
        self.work.add(ticket)
        self._ends.put(ticket, ticket.latest_start(speed))

    def remove(self, ticket: Ticket) -> None:
        line = self._lines[ticket.account]
        line.queue.discard(ticket)
        line.work.add(ticket, -1)
        self.work.add(ticket, -1)
        self._ends.discard(ticket)
        if not line.queue:
            self.shares -= line.share
            del self._lines[ticket.account]
        if not self._lines:
            self.shares = 0.0  # and so rounding errors end here

    def of(self, account: Account) -> Work:
        """What an account has waiting."""
        line = self._lines.get(account)
        return line.work if line else NO_WORK

    def share(self, account: Account) -> float:
        """What an account contributes to :attr:`shares`."""
        line = self._lines.get(account)
        return line.share if line else 0.0

    def head(self, account: Account) -> Ticket | None:
        """The job of an account that goes next."""
        line = self._lines.get(account)
        top = line.queue.least() if line else None
        return top[1] if top else None

    def lapsed(self, now: float, speed: Speed) -> Iterator[Ticket]:
        """Jobs that can no longer be served in time. Remove each one before asking for the next."""
        while (top := self._ends.least()) and top[0] < now:
            ticket = top[1]
            latest = ticket.latest_start(speed)
            if latest < now:
                yield ticket
            else:  # the engine has become faster since
                self._ends.put(ticket, latest)
