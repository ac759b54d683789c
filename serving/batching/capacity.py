"""What one engine can do, from the step-time model that its scheduler learns. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from serving.batching.board import Reading
from serving.batching.jobs import Room, Speed
from serving.batching.steptime import Coefficients, Step, StepTime

AHEAD_S = 0.35
"""Prefill work that the engine may hold, at the pace that decoding leaves it: enough to be never idle, little to wait
behind. In simulated overload, at the pace of an idle engine instead, a tenth of those let in were late. With 0.5 a
third more were late than with 0.35, and with 0.25 fewer still but more were given up after they had waited."""
PREFILLS = 32
"""Prefills under way at most, where each is another account's, or due sooner than its account's others: the scheduler
takes them in that order."""
SLOW = 1.5
"""A step with all streams may take so many times that with one, whatever was promised."""
FEWEST = 2
"""Streams that any engine takes. A second one at most doubles a step, and without a place it waits for a whole answer.
What was learnt on a busy machine, as while a replica is being replaced, may say that there is one place only."""
TYPICAL_CONTEXT = 256
"""Tokens of a stream in the KV cache, before any was seen."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the engine was started with, and what is promised."""

    max_streams: int
    """``max_num_seqs``."""
    step_s: float
    """The longest step that keeps the strictest promise among those who are there, as the scheduler takes it."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the engine can do at this moment."""

    slots: int
    """Streams at once."""
    ahead_tokens: int
    """Prefill tokens that it may hold unfinished."""
    speed: Speed

    def room(self, running: int) -> Room:
        """What is free beside so many running streams."""
        return Room(max(0, self.slots - running), self.ahead_tokens, PREFILLS)


def capacity(reading: Reading, bounds: Bounds) -> Capacity:
    """From the engine's last reading; from the prior, where there is none yet."""
    model = StepTime.of(_coefficients(reading)) if reading.observations else StepTime()
    typical = round(reading.context_tokens / reading.decoding) if reading.decoding else TYPICAL_CONTEXT
    slots = _slots(model, typical, bounds)
    decoding = min(round(reading.decoding), slots)
    speed = model.speed(slots, typical, decode_streams=decoding, within_s=bounds.step_s)
    ahead = max(1, round(AHEAD_S / max(speed.prefill_s * speed.slowdown, 1e-9)))
    return Capacity(slots, ahead, speed)


def _slots(model: StepTime, context: int, bounds: Bounds) -> int:
    """The most streams whose decoding alone keeps within the step.

    An engine too slow for the promise of even one stream takes as many as make it half as slow again: the promise is
    broken either way, and one by one nobody would get a first token in time.

    Fewer would leave more to prefill, and keep newcomers waiting before the engine instead of in it: with the mix of
    published conversations that made the first token at half load half as slow again, and goodput no better.
    """
    one = model.predict(Step(0, 1, context))
    each = model.predict(Step(0, 2, 2 * context)) - one
    within = max(bounds.step_s, SLOW * one)
    fitting = bounds.max_streams if each <= 0 else 1 + int(min((within - one) / each, 1e9))
    return max(1, min(bounds.max_streams, max(FEWEST, fitting)))


def _coefficients(reading: Reading) -> Coefficients:
    return Coefficients(reading.fixed_s, reading.prefill_token_s, reading.decode_stream_s, reading.context_token_s)
