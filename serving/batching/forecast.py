"""When a job would get its first token, from totals alone: O(log n), however much waits.

Fair sharing bounds what comes before a job: all that waits, or its own account's jobs and meanwhile the others' share
beside them, whichever is less. Ahead of its first token the engine has to

- prefill what comes before it, at the pace that decoding leaves to prefill, and
- where slots are lacking, finish that many streams: one ends as often as a whole answer's engine time passes, and none
  before the first of the running ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.batching.backlog import NO_WORK, Backlog, Ticket, Work
from serving.batching.jobs import Speed
from serving.batching.running import Running


@dataclass(frozen=True, slots=True)
class Forecast:
    """What stands between a job and its first token. All in seconds."""

    first_token_s: float
    release_s: float
    """Engine time after which one more stream ends; 0 where no slot is lacking."""
    first_release_s: float
    """When the first of the running streams ends; 0 where no slot is lacking."""


def forecast(
    ticket: Ticket,
    backlog: Backlog,
    running: Running,
    speed: Speed,
    *,
    coming: Work = NO_WORK,
    stranger: bool = False,
) -> Forecast:
    """For a ticket that does not wait yet.

    Args:
        coming: what its own account will have waiting before it, besides what waits.
        stranger: whether to take it for the only job of another account of the same share.
    """
    waits = NO_WORK if stranger else backlog.of(ticket.account)
    own = Work(waits.prefill + coming.prefill, waits.answer + coming.answer, waits.streams + coming.streams)
    own_prefill = own.prefill + (0 if stranger else running.prefill_of(ticket.account, ticket.start_by))
    others = Work(backlog.work.prefill - waits.prefill, backlog.work.answer - waits.answer)
    others.prefill += running.prefill - (0 if stranger else running.prefill_of(ticket.account))
    waiting = backlog.shares - (0.0 if stranger else backlog.share(ticket.account))
    # Who has prompts in the engine has others waiting as a rule. Where nobody has, those in the engine take turns.
    rivals = max(0.0, waiting, running.shares - (0.0 if stranger else running.share(ticket.account)))
    entitled = own.seconds(speed) + ticket.prefill_left * speed.prefill_s + ticket.answer_left * speed.answer_s
    owed = entitled * rivals / ticket.share
    in_all = others.seconds(speed)
    part = min(1.0, owed / in_all) if in_all > 0 else 1.0

    prefill_s = (own_prefill + part * others.prefill + ticket.prefill_left) * speed.prefill_s
    streams = own.streams + part * (backlog.work.streams - waits.streams)
    lacking = streams + 1 - (speed.slots - running.streams)
    beside = prefill_s * speed.slowdown if running.streams else prefill_s
    if lacking <= 0:
        return Forecast(beside + speed.step_s, 0.0, 0.0)
    answers = own.answer + part * others.answer + running.answer
    release = answers / max(1.0, streams + running.streams) * speed.answer_s
    first = running.turns_to_an_end() * speed.answer_s * speed.slots
    return Forecast(max(beside, prefill_s + max(lacking * release, first)) + speed.step_s, release, first)
