"""What one engine step does: which prefills go on, in which order, and how many tokens fit. Pure.

Decodes come first: every running stream gets its token. Prefill goes on beside them no faster than it has to: so that
the next prompt is done in this step, if that is quick, and all of them in good time. Never faster than the streams'
inter-token promise allows. Where more waits before the engine, or prompts have stood behind each other for a while, a
step finishes as many as it can, for its fixed cost is shared by all that fits it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.batching.jobs import MOST_TOKENS, Account
from serving.batching.steptime import LEAST_CHUNK, Step, StepTime

WORTH = 10.0
"""A step takes at most so many times what it takes without prefill, whatever was promised: the fixed cost is a tenth of
it then, so that more would gain little, and everybody who decodes would wait for it."""
GENTLE = 2.0
"""How many times that a step takes where nothing is in a hurry: a long prompt that is done in good time all the same
makes nobody's next token much slower."""
QUICK = 3.5
"""How many times that it takes to finish the next prompt at once, where nothing is in a hurry. Without it simulated
first tokens at half load came a seventh later; with any prompt that fits a step, inter-token p95 was a fifth longer."""
SHORT = 96
"""Tokens of a prompt as most newcomers bring it. Beside somebody's long prompt a step is longer by no more than such a
prompt takes: who comes meanwhile waits for it, and would wait as long for its own."""
SHORT_S = 0.03
"""Nobody minds waiting for so much, where prompts are computed faster than that."""
SEVERAL = 4
"""To finish prompts, a step is longer by so many short ones at most. With 2.7 simulated newcomers came as late as with
5.3, for they were split themselves."""
NEWCOMERS = 1.2
"""Of what a running stream was promised, how much a newcomer waits for a step's end at most: its own promise is the
longer one, and running streams may have saved for a step that is longer than theirs."""
UNFINISHED = 0.6
"""Of what a running stream was promised, how long a step is beyond the prompts that it finishes: what streams have
saved is for those."""
REST = 0.5
"""Of what is computed of a prompt, how much is left of it at least for a longer step to be worth it: less saves one
step of many, and who comes meanwhile waits for its end. Measured beside a flood of prompts of 1,236 tokens, such steps
took an eighth of the time, and six of the ten slowest first tokens waited for one. Simulated goodput in overload is the
same without them, tokens a second beside the flood are 1 to 4% fewer."""
BEHIND_S = 1.0
"""After so long with always a prompt behind another, they come as fast as they are done, or faster."""
IN_TIME = 0.3
"""Of the time that a prefill has left, in how much it is to be done. Others come that go first; and what is left is
asked anew for every step, so that with 0.6 a long prompt ended later than nine tenths of its time."""
COMPANY_S = 10.0
"""Somebody who asked this recently may ask again before a long step ends."""
SPENT_AT_ONCE = 0.8
"""Of a step, what a stream that was served faster than promised bears beyond it, so that a prompt need not be split."""

CAUGHT_UP = 0.25
"""Of what a stream is behind, what a step makes up for..."""
CAUGHT_UP_AT_ONCE = 0.4
"""...but for no more of its time than this."""
HOPELESS = 5.0
"""A stream that is behind by so many steps will not catch up before it ends, as most do."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """A prompt that is not wholly in the KV cache yet."""

    id: str
    account: Account
    left: int
    """Tokens still to prefill."""
    first_token_by: float
    """When its first token is due, in seconds of any one clock."""
    admitted: bool
    """Whether the engine has begun it. Those that it has are scheduled before those that wait."""
    computed: int = 0
    """Tokens of it that are in the KV cache."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a step may take."""

    tokens: int
    """The engine's own bound on the tokens of a step."""
    step_s: float
    """The longest step that keeps the strictest inter-token promise of anybody who may come. A step takes at most
    :data:`NEWCOMERS` times that where several are about, of whom somebody was promised something."""
    chunk: int = LEAST_CHUNK
    """Tokens by which prefill goes on in a step at least."""
    debt: int = 64
    """Virtual tokens by which accounts may differ and still be taken in the order that is best for everybody."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a step does."""

    order: tuple[str, ...]
    """Prefills, the next one first."""
    held: frozenset[str]
    """Begun prefills that this step leaves out, since somebody who waits comes before them."""
    tokens: int
    """The step's budget, decodes included."""


class Behind:
    """Whether prompts have stood behind each other for so long that an engine does not keep up at leisure."""

    def __init__(self) -> None:
        self._since = math.inf
        self._last = -math.inf

    def step(self, now: float, prefills: int) -> bool:
        """To be told before every step how many prompts there are to prefill."""
        if prefills < 2:
            self._since = math.inf
            return False
        if now - self._last > BEHIND_S:
            self._since = now
        self._since, self._last = min(self._since, now), now
        return now - self._since >= BEHIND_S


def plan(
    prefills: Sequence[Prefill],
    counter: Callable[[Account], float],
    *,
    now: float,
    decode_streams: int,
    decode_tokens: int,
    context_tokens: int,
    promised_s: float,
    company: bool,
    crowded: bool,
    model: StepTime,
    limits: Limits,
) -> Plan:
    """
    Args:
        now: by the clock of the prefills' due times.
        counter: what an account was served, in virtual tokens.
        decode_streams: running streams, each of which gets a token (``decode_tokens`` in all).
        context_tokens: what those streams have in the KV cache.
        promised_s: the longest step that keeps the inter-token promise of every stream.
        company: whether several organisations were about lately, not all of whom said that they can wait.
        crowded: whether more waits before the engine, the engine is :class:`Behind`, or everybody said that they can
            wait: then tokens a second are all that is asked for.
    """
    ordered = order(prefills, counter, limits.debt)
    waits = next((index for index, one in enumerate(ordered) if not one.admitted), len(ordered))
    held = frozenset(one.id for one in ordered[waits:] if one.admitted)
    room = max(0, limits.tokens - decode_tokens)
    least = min(limits.chunk, room)
    decode_s = model.predict(Step(0, decode_streams, context_tokens))
    short_s = max(SHORT * model.coefficients.prefill_token_s, SHORT_S)
    within = min(NEWCOMERS * limits.step_s, decode_s + SEVERAL * short_s) if company else math.inf
    if decode_streams:
        within = min(within, promised_s, WORTH * decode_s)
    if within < math.inf:
        room = model.chunk(within, decode_streams, context_tokens, at_most=room, at_least=least)
    if decode_streams and ordered:

        def within_s(seconds: float) -> int:
            return model.chunk(seconds, decode_streams, context_tokens, at_most=room, at_least=least)

        pressing = _pressing(ordered, now, decode_s, model)
        if crowded:
            done = _done(ordered, room)
            further = within_s(min(UNFINISHED * limits.step_s, decode_s + short_s if company else math.inf))
        else:
            done = _done(ordered[:1], within_s(QUICK * decode_s))
            further = within_s(GENTLE * decode_s)
        room = min(room, max(done, further, pressing))
    return Plan(tuple(one.id for one in ordered), held, decode_tokens + room)


def _done(ordered: Sequence[Prefill], room: int) -> int:
    """Tokens of the first prompts, as many as are finished within so many and worth it."""
    done = 0
    for one in ordered:
        if done + one.left > room or one.left < REST * one.computed:
            break
        done += one.left
    return done


def _pressing(ordered: Sequence[Prefill], now: float, decode_s: float, model: StepTime) -> int:
    """Prefill tokens a step with which each of them, one after the other, is done in good time."""
    token_s = model.coefficients.prefill_token_s
    before, pace = 0, 0.0
    for one in ordered:
        before += one.left
        left_s = IN_TIME * (one.first_token_by - now)
        if left_s <= 0:
            return MOST_TOKENS
        pace = max(pace, before / left_s)
    spare = 1 - token_s * pace
    return math.ceil(min(pace * decode_s / spare, MOST_TOKENS)) if spare > 0 else MOST_TOKENS


def bearable_s(step_s: float, tokens: int, elapsed_s: float) -> float:
    """The longest step that a stream bears which got so many tokens in so long; any, where nothing was promised.

    Its promise is about its mean time between tokens, so what it was served faster may be spent, and what it was served
    slower is made up for. One that is hopelessly late holds nobody up: its promise is broken whatever comes.
    """
    if step_s == math.inf:
        return math.inf
    saved = step_s * tokens - elapsed_s
    if saved >= 0:
        return step_s + min(saved, SPENT_AT_ONCE * step_s)
    return step_s if saved < -HOPELESS * step_s else step_s + max(CAUGHT_UP * saved, -CAUGHT_UP_AT_ONCE * step_s)


def order(prefills: Sequence[Prefill], counter: Callable[[Account], float], debt: float) -> list[Prefill]:
    """The next one first.

    Between accounts: those within ``debt`` of the least served come before the others, and among them the one whose
    next prompt is done soonest; the others come by what they were served. Within an account: by due time. The shortest
    first makes everybody's mean wait least, and the debt bounds what a long prompt pays for it: whoever is passed over
    falls behind, until it alone is the least served.
    """
    if len(prefills) < 2:
        return list(prefills)
    queues: dict[Account, list[Prefill]] = {}
    for one in sorted(prefills, key=lambda one: one.first_token_by):
        queues.setdefault(one.account, []).append(one)
    counters = {account: counter(account) for account in queues}
    least = min(counters.values())

    def rank(account: Account) -> tuple[bool, float, float]:
        near = counters[account] <= least + debt
        first = queues[account][0]
        return not near, first.left if near else counters[account], first.first_token_by

    return [one for account in sorted(queues, key=rank) for one in queues[account]]
