"""Who was served how much: the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models"
(OSDI 2024).

An account's counter is what it was served: tokens, weighed by what they cost an engine, over the account's share.
Four things are added to the paper:

- Tokens are charged as they are served, and what was begun and is not yet served stands beside the counter as a pledge.
  Order goes by the sum, so that nobody takes every free slot at once before the first charge comes in.
- Whoever comes back keeps :data:`CREDIT` of what it did not use. Somebody who asks for less than a fair share is idle
  between its requests; without any credit it would stand, each time, in line with those who ask for all they can get.
- Only what waits counts as present. An organisation that keeps one stream alive for hours is owed nothing for it.
- Idle accounts are forgotten as soon as they would be lifted anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import TypeVar

from serving.batching.heap import PriorityQueue
from serving.batching.jobs import Account

PREFILL_COST = 1
ANSWER_COST = 2
"""An answer token costs an engine more than a prompt token; 1 and 2 are the paper's choice, and like public prices."""

CREDIT = 256.0
"""Virtual tokens: about a short request. Too little to hoard, enough that one who is within its share goes first."""

Thing = TypeVar("Thing")


def virtual_tokens(prefill_tokens: float, answer_tokens: float, share: float) -> float:
    """What tokens cost an account of an effective weight: the unit of everything in the ledger."""
    return (PREFILL_COST * prefill_tokens + ANSWER_COST * answer_tokens) / share


@dataclass(slots=True)
class _Page:
    counter: float
    pledged: float = 0.0
    waiting: int = 0
    running: int = 0

    @property
    def standing(self) -> float:
        return self.counter + self.pledged


class Ledger:
    """Counters by account. One that was never heard of stands where one does that was idle for long."""

    def __init__(self, credit: float = CREDIT) -> None:
        """
        Args:
            credit: how far below the others an account may return, in virtual tokens.
        """
        self._credit = credit
        self._pages: dict[Account, _Page] = {}
        # Keys may lag behind: a counter only rises, so an account is looked at too early, never too late.
        self._by_standing: PriorityQueue[Account] = PriorityQueue()
        self._by_counter: PriorityQueue[Account] = PriorityQueue()
        self._idle: PriorityQueue[Account] = PriorityQueue()
        self._floor = 0.0

    def __len__(self) -> int:
        """How many accounts are remembered."""
        return len(self._pages)

    def counter(self, account: Account) -> float:
        """What the account was served, lifts included."""
        page = self._pages.get(account)
        return page.counter if page else self._returning

    def standing(self, account: Account) -> float:
        """The counter and what is pledged: the least goes first."""
        page = self._pages.get(account)
        return page.standing if page else self._returning

    def lead(self, account: Account) -> float:
        """How far ahead of the least served of those who wait the account would be if it waited too, pledges counted.

        Below zero: it would go before them.
        """
        self._raise_floor()
        page = self._pages.get(account)
        return (max(page.counter, self._returning) + page.pledged if page else self._returning) - self._floor

    def enter(self, account: Account) -> None:
        """One more of its jobs waits. Where it is the only one, the counter is lifted: to the least of those waiting,
        less the credit.

        With nobody waiting that is where the last who waited stood when it stopped.
        """
        self._raise_floor()
        page = self._page(account)
        if not page.waiting:
            page.counter = max(page.counter, self._returning)
            self._by_counter.put(account, page.counter)
            self._by_standing.put(account, page.standing)
            self._idle.discard(account)
        page.waiting += 1

    def leave(self, account: Account) -> None:
        """One of its jobs waits no longer."""
        page = self._pages.get(account)
        if page is None or not page.waiting:
            return
        page.waiting -= 1
        if not page.waiting:
            self._raise_floor()
            self._by_standing.discard(account)
            self._by_counter.discard(account)
            self._rest(account, page)

    def begin(self, account: Account, pledge: float) -> None:
        """One of its jobs is started and is expected to cost so many virtual tokens."""
        page = self._page(account)
        self._idle.discard(account)
        page.running += 1
        page.pledged += pledge

    def charge(self, account: Account, tokens: float, kept: float = 0.0) -> None:
        """Virtual tokens were served; ``kept`` is how much of its pledge has come true or is void."""
        page = self._page(account)
        page.counter += tokens
        page.pledged = max(0.0, page.pledged - kept)
        if kept > tokens and page.waiting:
            self._by_standing.put(account, page.standing)
        self._rest(account, page)

    def end(self, account: Account, unkept: float) -> None:
        """One of its jobs ended, with so much of its pledge unserved."""
        page = self._pages.get(account)
        if page is None or not page.running:
            return
        page.running -= 1
        # With nothing running nothing is pledged, and so rounding errors end here.
        self.charge(account, 0.0, kept=unkept if page.running else page.pledged)

    def leading(self, within: float, most: int, without: Container[Account] = ()) -> list[Account]:
        """Waiting accounts by their standing, least first, as far as ``within`` behind the least of them.

        ``without`` are passed over, which costs as much as if they had been asked for.
        """
        queue, pages = self._by_standing, self._pages
        found: list[Account] = []
        seen: list[tuple[float, Account]] = []
        limit = math.inf
        while len(found) < most and (top := queue.pop()):
            key, account = top
            standing = pages[account].standing
            if standing > key:
                queue.put(account, standing)
                continue
            seen.append(top)
            if standing > limit:
                break
            if account not in without:
                limit = min(limit, standing + within)
                found.append(account)
        for standing, account in seen:
            queue.put(account, standing)
        return found

    def order(self, things: Iterable[Thing], account_of: Callable[[Thing], Account]) -> list[Thing]:
        """Things by their account's standing, least first; in the order in which they came among equals."""
        return sorted(things, key=lambda thing: self.standing(account_of(thing)))

    @property
    def _returning(self) -> float:
        """The counter of whoever comes back after long."""
        return self._floor - self._credit

    def _page(self, account: Account) -> _Page:
        page = self._pages.get(account)
        if page is None:
            page = self._pages[account] = _Page(self._returning)
        return page

    def _rest(self, account: Account, page: _Page) -> None:
        if not page.waiting and not page.running:
            self._idle.put(account, page.counter)

    def _raise_floor(self) -> None:
        while top := self._by_counter.least():
            key, account = top
            counter = self._pages[account].counter
            if counter <= key:
                self._floor = max(self._floor, counter)
                break
            self._by_counter.put(account, counter)
        while (top := self._idle.least()) and top[0] <= self._returning:
            self._idle.discard(top[1])
            del self._pages[top[1]]
