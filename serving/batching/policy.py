"""Who goes next, who is turned away early, what is given up: the core of batching. Pure: no clock, no I/O, no vLLM.

A driver offers jobs, asks for the next one whenever the engine has room, and tells what the engine served. It may be a
pacer in front of an engine or a simulator. Every job that was offered ends as exactly one of: refused, handed out by
:meth:`Policy.next`, given back by :meth:`Policy.expire`, withdrawn. Nothing here raises for what a driver says.

Between accounts the ledger decides: the least served goes first, and among those within ``debt`` of it the one whose
promise is about to be missed, then the one with most of its prompt in the cache. Whatever order comes of it, two
accounts that both have something waiting are served alike: over any time, the virtual tokens that they were served
differ by at most ``2 (debt + R)``, R being what a running batch costs at most at the lesser of their shares, as
allowed or as it came, whichever is more. That is the bound of Sheng et al. with weights and with ``debt``: when an
account is picked, its counter and pledge are at most ``debt`` above the other's, and both their pledges are part of R.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from operator import itemgetter

from serving.batching.backlog import NO_WORK, Backlog, Ticket, Work
from serving.batching.forecast import Forecast, forecast
from serving.batching.jobs import MOST_TOKENS, Account, Job, Reason, Refusal, Room, Speed
from serving.batching.ledger import Ledger, virtual_tokens
from serving.batching.lengths import AnswerLengths
from serving.batching.running import Running

DEBT_TOKENS = 100.0
"""Less than a short request costs: with more, a light organisation waits for more than one of a heavy one's jobs."""
CANDIDATES = 6
"""How many accounts are compared for the next job at most."""
CAUTION = 3.0
"""A job is let in if its promise holds even when what is ahead of it takes so many times as long as foretold.

A forecast taken at its word is too low for half of those that it just lets in, and others come that go first. In
simulated overload 2 gave as much goodput and three times as many late refusals, and 3.6 served fewer tokens.
"""
CALM = 1.3
"""The same for an account that has been served less than its share: nobody comes who goes first. With :data:`CAUTION`
for everybody, simulated organisations within their share were turned away twice as often as their first tokens came
late."""
OWED = 150.0
"""An account is taken for such a one as long as it is no further ahead of the least served, in virtual tokens, with all
that it has waiting."""
SOONEST_RETRY_S = 0.25
_RETRY_MARGIN = 1.5
_LATELY = 16
"""First tokens of which it is remembered how much slower prefill was beside the answers of the moment."""
_SLOWED = 1.5
"""Before there were as many: what it comes to when the engine is full."""


class Policy:
    """One engine's policy."""

    def __init__(
        self, speed: Speed, *, debt: float = DEBT_TOKENS, caution: float = CAUTION, ledger: Ledger | None = None
    ) -> None:
        """
        Args:
            debt: how far an account may be ahead of the least served one and still be preferred, in virtual
                tokens.
            caution: by what the forecast of what is ahead is multiplied before a job is let in, at most; see
                :data:`CAUTION` and :data:`CALM`.

        Raises:
            ValueError: for a speed that is negative or not finite.
        """
        if not speed.usable:
            raise ValueError("speeds are finite and not negative, with at least one slot")
        self.ledger = ledger if ledger is not None else Ledger()  # an empty one is false
        self.refused = dict.fromkeys(Reason, 0)
        """How many jobs were turned away, by reason."""
        self._speed = speed
        self._debt = debt
        self._caution = caution
        self._now = 0.0
        self._lengths = AnswerLengths()
        self._waiting: dict[str, Ticket] = {}
        self._started: dict[str, Ticket] = {}
        self._backlog = Backlog()
        self._running = Running()
        self._lapsed: dict[str, Job] = {}
        self._slowdowns = deque([_SLOWED], maxlen=_LATELY)

    @property
    def speed(self) -> Speed:
        """What the engine needs for a token. May be set at any time; one that cannot be is left unset."""
        return self._speed

    @speed.setter
    def speed(self, speed: Speed) -> None:
        if speed.usable:
            self._speed = speed

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._started)

    @property
    def running_streams(self) -> int:
        """Streams of the jobs that run: at least as many as there are jobs."""
        return self._running.streams

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens to compute and answer tokens expected of the jobs that wait."""
        return self._backlog.work.prefill + self._backlog.work.answer

    @property
    def outstanding_s(self) -> float:
        """Engine time that all jobs take yet, waiting and running."""
        speed, running = self._speed, self._running
        unserved = running.prefill * speed.prefill_s + running.answer_left * speed.answer_s
        return self._backlog.work.seconds(speed) + unserved

    def first_token_s(self, job: Job) -> float:
        """Seconds in which a job offered now would get its first token, as predicted. Not a number for a flawed job."""
        if job.flaw():
            return math.nan
        return forecast(self._ticket(job), self._backlog, self._running, self._speed).first_token_s

    def offer(self, job: Job, now: float) -> Refusal | None:
        """Let a job wait, or turn it away since its promise would be missed."""
        refusal = self.judge(job, now)
        if refusal:
            self.refused[refusal.reason] += 1
            return refusal
        ticket = self._ticket(job)
        self._waiting[job.id] = ticket
        self._backlog.add(ticket, self._speed)
        self.ledger.enter(ticket.account)
        return None

    def judge(self, job: Job, now: float, coming: Work = NO_WORK) -> Refusal | None:
        """Why a job offered now would be turned away; ``None`` where it would be let in. Changes nothing.

        Args:
            coming: what else of its account is about to be offered before it.
        """
        now = self._time(now)
        if flaw := job.flaw():
            return Refusal(Reason.IMPOSSIBLE, None, flaw)
        if job.id in self._waiting or job.id in self._started or job.id in self._lapsed:
            return Refusal(Reason.IMPOSSIBLE, None, "a job of this id is under way")
        ticket = self._ticket(job)
        allowed = job.start_by - now
        alone = ticket.alone_s(self._speed)
        if allowed <= 0 or allowed < alone <= job.start_by - job.arrived:
            return Refusal(Reason.EXPIRED, SOONEST_RETRY_S, "too late for its promise")
        if allowed < alone:
            return Refusal(Reason.IMPOSSIBLE, None, "its prefill alone takes longer than was promised")
        ahead = forecast(ticket, self._backlog, self._running, self._speed, coming=coming)
        caution = self._caution_for(ticket.account, coming)
        if _feared(ahead, alone, caution) <= allowed:
            return None
        stranger = forecast(ticket, self._backlog, self._running, self._speed, stranger=True)
        ready = self._ready_s(ticket, alone, caution, allowed, coming)
        # Slots come free one by one, so the wait falls in steps.
        wait = max(ready + ahead.release_s, ahead.first_release_s)
        served = _feared(stranger, alone, min(CALM, self._caution)) <= allowed
        reason = Reason.OVER_SHARE if served else Reason.OVERLOADED
        why = f"its first token is {ahead.first_token_s:.1f} s away, {allowed:.1f} s were promised"
        return Refusal(reason, max(SOONEST_RETRY_S, wait * _RETRY_MARGIN), why)

    def next(self, now: float, room: Room) -> Job | None:
        """The job to start now, from here on running. A job comes if the room is open and any can be served in time."""
        now = self._time(now)
        if room.slots <= 0 or not self._waiting:
            return None
        crowded = self._running.prefill >= room.prefill_tokens
        if crowded and self._running.prefills >= room.prefills:
            return None
        without = _Placed(self._backlog, self._running) if crowded else ()
        while accounts := self.ledger.leading(self._debt, CANDIDATES, without):
            heads = [head for account in accounts if (head := self._head(account, now))]
            if heads:
                _, ticket = min(heads, key=itemgetter(0))  # the least served of equals: they come in that order
                self._start(ticket)
                return ticket.job
        return None

    def served(self, id: str, prefill_tokens: int = 0, answer_tokens: int = 0) -> None:
        """The engine computed so many tokens of a running job. With the first answer token its prefill is finished."""
        ticket = self._started.get(id)
        if ticket is None:
            return
        prefill_tokens, answer_tokens = _count(prefill_tokens), _count(answer_tokens)
        if answer_tokens and not ticket.answer_served:
            self._slowdowns.append(self._speed.slowdown)
        kept = self._running.progress(ticket, self._now, prefill_tokens, answer_tokens)
        self.ledger.charge(ticket.account, virtual_tokens(prefill_tokens, answer_tokens, ticket.share), kept)

    def finished(self, id: str) -> None:
        """A running job came to its own end."""
        ticket = self._started.get(id)
        if ticket is not None and ticket.answer_served:
            self._lengths.learn(ticket.job.organisation, ticket.answer_served / ticket.job.streams)
        self.withdrawn(id)

    def withdrawn(self, id: str) -> None:
        """The client left, or the engine gave up: the job is forgotten, waiting or running."""
        if ticket := self._started.pop(id, None):
            self._running.end(ticket)
            self.ledger.end(ticket.account, ticket.pledge)
        elif ticket := self._waiting.get(id):
            self._drop(ticket)
        self._lapsed.pop(id, None)

    def expire(self, now: float) -> list[Job]:
        """Waiting jobs that not even an idle engine could serve in time any more. Each is given back once."""
        for ticket in self._backlog.lapsed(self._time(now), self._speed):
            self._give_up(ticket)
        lapsed, self._lapsed = self._lapsed, {}
        return list(lapsed.values())

    def _caution_for(self, account: Account, coming: Work) -> float:
        own = self._backlog.of(account)
        share = self._backlog.share(account) or 1.0
        waits = virtual_tokens(own.prefill + coming.prefill, own.answer + coming.answer, share)
        ahead = self.ledger.lead(account) + waits
        return min(CALM, self._caution) if ahead <= OWED else self._caution

    def _ready_s(self, ticket: Ticket, alone: float, caution: float, allowed: float, coming: Work) -> float:
        """When enough of what is ahead of a ticket is done for it to be let in, if nothing else came.

        By then those ahead have begun to answer, and prefill is as slow beside them as it lately was. A prompt is told
        of once all of it is computed, so that whole ones have to be done, the first of them for as long already as it
        is that one was; and one that runs is in the way of its own account's next, whichever is due first.
        """
        speed, own = self._speed, self._backlog.of(ticket.account)
        slowed = replace(speed, slowdown=max(speed.slowdown, *self._slowdowns))
        running = self._running.prefill_of(ticket.account)
        overlooked = running - self._running.prefill_of(ticket.account, ticket.start_by)
        ahead = forecast(ticket, self._backlog, self._running, slowed, coming=coming)
        token_s = speed.prefill_s * slowed.slowdown
        excess = (_feared(ahead, alone, caution) - allowed) / caution + overlooked * token_s
        prompts = own.jobs + coming.jobs + self._running.prefills_of(ticket.account)
        each = (own.prefill + coming.prefill + running) / max(1, prompts) * token_s
        if not (each > 0 and math.isfinite(excess / each)):
            return excess
        return math.ceil(excess / each) * each - min(each, self._running.prefilling_s(ticket.account, self._now))

    def _head(self, account: Account, now: float) -> tuple[tuple[int, int], Ticket] | None:
        """The next job of an account that can still be served in time, after what it is compared by.

        Those that cannot are put aside for :meth:`expire`.
        """
        while ticket := self._backlog.head(account):
            slack = ticket.latest_start(self._speed) - now
            if slack >= 0:
                return (_urgency(slack), -ticket.job.cached_tokens), ticket
            self._give_up(ticket)
        return None

    def _start(self, ticket: Ticket) -> None:
        # Begun before it leaves: an account with neither is forgotten.
        self.ledger.begin(ticket.account, ticket.pledge)
        self._drop(ticket)
        self._started[ticket.job.id] = ticket
        self._running.begin(ticket, self._now)

    def _give_up(self, ticket: Ticket) -> None:
        self._drop(ticket)
        self._lapsed[ticket.job.id] = ticket.job

    def _drop(self, ticket: Ticket) -> None:
        del self._waiting[ticket.job.id]
        self._backlog.remove(ticket)
        self.ledger.leave(ticket.account)

    def _ticket(self, job: Job) -> Ticket:
        return Ticket.of(job, self._lengths.expected(job.organisation, job.answer_tokens))

    def _time(self, now: float) -> float:
        """The driver's clock, or what it last said where it says what is no time."""
        if math.isfinite(now):
            self._now = now
        return self._now


class _Placed:
    """Accounts whose next prompt would stand in the engine behind one of their own: it takes those by due time."""

    def __init__(self, backlog: Backlog, running: Running) -> None:
        self._backlog = backlog
        self._running = running

    def __contains__(self, account: object) -> bool:
        if not isinstance(account, Account) or not self._running.prefills_of(account):
            return False
        head = self._backlog.head(account)
        return head is None or self._running.prefill_of(account, head.start_by) > 0


def _feared(ahead: Forecast, alone: float, caution: float) -> float:
    """When the first token comes where all that is ahead takes longer than foretold; its own prefill is certain."""
    return alone + caution * max(0.0, ahead.first_token_s - alone)


def _urgency(slack: float) -> int:
    """Powers of two of the time left, so that the cache decides between jobs that have about as much."""
    return math.frexp(slack)[1] if 0 < slack < math.inf else MOST_TOKENS if slack else -MOST_TOKENS


def _count(tokens: int) -> int:
    return tokens if 0 < tokens <= MOST_TOKENS else 0
