"""What the engine has, as far as was told: prefills not finished, streams not ended, and when the next one ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from serving.batching.backlog import Ticket
from serving.batching.heap import PriorityQueue
from serving.batching.jobs import Account


@dataclass(slots=True)
class _Prompts:
    """An account's prefills that are not finished."""

    share: float
    heard: float
    """When the engine last said anything of them."""
    tickets: dict[Ticket, None] = field(default_factory=dict)


class Running:
    """Started jobs.

    Answers progress in turns, one token for every stream, so an end is expected at a turn that is known from the
    start; it stays where it is while turns go by.
    """

    def __init__(self) -> None:
        self.streams = 0
        self.prefill = 0
        """Prompt tokens not computed yet."""
        self.answer_left = 0
        """Answer tokens expected yet."""
        self.answer = 0
        """Answer tokens expected in all, of those that run."""
        self._prefilling: dict[Account, _Prompts] = {}
        self._prefills = 0
        self.shares = 0.0
        """Sum of the shares of the accounts with unfinished prefills."""
        self._expected: dict[Ticket, int] = {}
        self._ends: PriorityQueue[Ticket] = PriorityQueue()
        self._decoding = 0
        self._turn = 0.0

    def __len__(self) -> int:
        return len(self._expected)

    @property
    def prefills(self) -> int:
        """Prefills not finished."""
        return self._prefills

    def prefill_of(self, account: Account, due_by: float = math.inf) -> int:
        """What an account has unfinished that is due no later: the engine takes an account's own in this order."""
        prompts = self._prefilling.get(account)
        return sum(one.prefill_left for one in prompts.tickets if one.start_by <= due_by) if prompts else 0

    def share(self, account: Account) -> float:
        """What an account contributes to :attr:`shares`."""
        prompts = self._prefilling.get(account)
        return prompts.share if prompts else 0.0

    def prefills_of(self, account: Account) -> int:
        """How many of an account's prefills are not finished."""
        prompts = self._prefilling.get(account)
        return len(prompts.tickets) if prompts else 0

    def prefilling_s(self, account: Account, now: float) -> float:
        """Engine time that an account's unfinished prefills had since anything was heard of them, where every account
        that has some gets its share of it."""
        prompts = self._prefilling.get(account)
        return max(0.0, now - prompts.heard) * prompts.share / self.shares if prompts else 0.0

    def begin(self, ticket: Ticket, now: float) -> None:
        self._expected[ticket] = ticket.answer_left
        self.streams += ticket.job.streams
        self.prefill += ticket.prefill_left
        self.answer += ticket.answer_left
        self.answer_left += ticket.answer_left
        prompts = self._prefilling.get(ticket.account)
        if prompts is None:
            prompts = self._prefilling[ticket.account] = _Prompts(ticket.share, now)
            self.shares += ticket.share
        prompts.tickets[ticket] = None
        self._prefills += 1
        self._expect(ticket)

    def progress(self, ticket: Ticket, now: float, prefill_tokens: int, answer_tokens: int) -> float:
        """Enter what was served. Returns the virtual tokens by which the pledge has shrunk."""
        before = ticket.pledge
        computed = ticket.prefill_left if answer_tokens else min(prefill_tokens, ticket.prefill_left)
        if computed:
            self._prefilling[ticket.account].heard = now
            ticket.prefill_left -= computed
            self.prefill -= computed
            if not ticket.prefill_left:
                self._prefilled(ticket)
                self._decoding += ticket.job.streams
                self._expect(ticket)
        if answer_tokens:
            self._turn += answer_tokens / self._decoding
            answered = min(answer_tokens, ticket.answer_left)
            ticket.answer_left -= answered
            ticket.answer_served += answer_tokens
            self.answer_left -= answered
        return before - ticket.pledge

    def end(self, ticket: Ticket) -> None:
        if ticket.prefill_left:
            self._prefilled(ticket)
        else:
            self._decoding -= ticket.job.streams
        self.prefill -= ticket.prefill_left
        self.answer_left -= ticket.answer_left
        self.answer -= self._expected.pop(ticket)
        self.streams -= ticket.job.streams
        self._ends.discard(ticket)

    def turns_to_an_end(self) -> float:
        """How many tokens every stream gets before the first of them is expected to end."""
        top = self._ends.least()
        return max(0.0, top[0] - self._turn) if top else 0.0

    def _expect(self, ticket: Ticket) -> None:
        self._ends.put(ticket, self._turn + ticket.answer_left / ticket.job.streams)

    def _prefilled(self, ticket: Ticket) -> None:
        self._prefills -= 1
        prompts = self._prefilling[ticket.account]
        del prompts.tickets[ticket]
        if not prompts.tickets:
            del self._prefilling[ticket.account]
            # Rounding errors end where nothing is left.
            self.shares = self.shares - prompts.share if self._prefilling else 0.0
