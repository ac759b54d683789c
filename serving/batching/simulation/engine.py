"""An engine that takes time and does nothing else: steps of prefills and decodes, as long as the coefficients say.

Steps in which nothing but decoding goes on are not played one by one. Their times are an arithmetic progression, since
the context grows by one token a stream, so that a stretch of them is one event; what happens meanwhile cuts it short
after the step that is under way. The KV cache is taken for large enough: nothing is preempted.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from random import Random

from serving.batching.simulation.requests import Request
from serving.batching.simulation.scenario import EngineSize, StepTiming
from serving.batching.steptime import Coefficients, Step, StepTime

LONGEST_STRETCH = 1_000_000


class Engine(ABC):
    """What vLLM's engine core is to time. Subclasses say which prefills go on."""

    longest_stretch = LONGEST_STRETCH
    """Steps played at once at most."""

    def __init__(self, timing: StepTiming, size: EngineSize, rng: Random) -> None:
        self.decoding: list[Request] = []
        self.begun: dict[Request, None] = {}
        """Prefills that have a place among the running."""
        self.waiting: dict[Request, None] = {}
        self.context = 0
        """Tokens in the KV cache of those that decode."""
        self.ends = math.inf
        """When the step or the stretch that is under way ends."""
        self.busy_s = 0.0
        """Time of all steps that ended."""
        self.last = Step(0, 0, 0)
        """The last step that ended."""
        self.size = size
        self._truth = StepTime.of(
            Coefficients(timing.fixed_s, timing.prefill_token_s, timing.decode_stream_s, timing.context_token_s)
        )
        self._timing = timing
        self._rng = rng
        self._chunks: list[tuple[Request, int]] = []
        self._started = 0.0
        self._step_s = 0.0
        """The next step's time..."""
        self._growth_s = 0.0
        """...and by how much each further one takes longer."""
        self._steps = 0
        self._free_at = 0.0
        self._due = math.inf

    @abstractmethod
    def _planned(self, now: float) -> list[tuple[Request, int]]:
        """Prefill chunks of the next step, in order. Moves those that begin from waiting to begun."""

    @abstractmethod
    def _worked(self, chunks: Iterable[tuple[Request, int]], steps: int) -> None:
        """Called after chunks were prefilled, or every stream got so many tokens, or both."""

    @property
    def idle(self) -> bool:
        return self.ends == math.inf

    @property
    def requests(self) -> list[Request]:
        """All that it has."""
        return [*self.decoding, *self.begun, *self.waiting]

    def add(self, request: Request, now: float) -> None:
        """It joins the step after the one under way. An idle engine has to be told to :meth:`begin`."""
        self.waiting[request] = None
        self._due = min(self._due, request.deadline)
        self.cut(now)

    def begin(self, now: float) -> None:
        """The next step, if there is anything to do."""
        started = max(now, self._free_at)
        self._chunks = self._planned(started) if self.begun or self.waiting else []
        streams, prefill = len(self.decoding), sum(tokens for _, tokens in self._chunks)
        if not streams and not prefill:
            self.ends = math.inf
            return
        self._started = started
        self._steps = 1
        if not self._chunks:
            left = min([one.length.output - one.answered for one in self.decoding])
            self._steps = min(left, self.longest_stretch)
        noise = self._noise(self._steps)
        self._step = Step(prefill, streams, self.context)
        self._step_s = self._truth.predict(self._step) * noise + self._timing.between_s
        self._growth_s = self._timing.context_token_s * streams * noise
        self.ends = started + self._time_of(self._steps)

    def finish(self, now: float) -> tuple[list[Request], list[Request]]:
        """The stretch that ends now: who got a first token from this engine, and whose answer is whole."""
        chunks, self._chunks = self._chunks, []
        self._advance(self._steps)
        first = [one for one, tokens in chunks if self._prefill(one, tokens, now)]
        self._worked(chunks, 0)
        ended = [one for one in self.decoding if one.answered >= one.length.output]
        if ended:
            self.decoding = [one for one in self.decoding if one.answered < one.length.output]
            for one in ended:
                self.context -= one.context_offset + one.answered
                self._left(one)
        self._steps = 0
        self.ends = math.inf
        return first, ended

    def settle(self, now: float) -> None:
        """Count what was decoded by now, in steps that have ended; the stretch goes on."""
        done = 0
        if self._steps > 1 and now > self._started:
            done = min(self._completed(now - self._started), self._steps - 1)
        if done:
            self._started += self._time_of(done)
            self._advance(done)
            self._step_s += self._growth_s * done
            self._steps -= done

    def cut(self, now: float) -> None:
        """The step under way is the stretch's last."""
        if self._steps > 1:
            self.settle(now)
            self._steps = 1
            self.ends = self._started + self._step_s

    def stall(self, now: float, for_s: float) -> None:
        """What is under way ends so much later; an idle engine begins nothing for so long."""
        self.cut(now)
        if self.idle:
            self._free_at = max(self._free_at, now + for_s)
        else:
            self._free_at = self.ends = self.ends + for_s

    def overdue(self, now: float) -> list[Request]:
        """Requests whose deadline has passed, taken out. To be asked between two steps."""
        if now <= self._due:
            return []
        late = [one for one in self.requests if one.deadline < now]
        for one in late:
            if one in self.waiting:
                del self.waiting[one]
            elif one in self.begun:
                del self.begun[one]
            else:
                self.decoding.remove(one)
                self.context -= one.context_offset + one.answered
            self._left(one)
        self._due = min((one.deadline for one in self.requests), default=math.inf)
        return late

    def busy_by(self, now: float) -> float:
        """Of the time until now, what it worked. After :meth:`settle`."""
        return self.busy_s + (0.0 if self.idle else min(max(0.0, now - self._started), self._step_s))

    @abstractmethod
    def _left(self, request: Request) -> None:
        """Called when a request is no longer here."""

    def _fill(
        self, order: Iterable[Request], tokens: int, held: frozenset[str] = frozenset()
    ) -> list[tuple[Request, int]]:
        """Chunks for those in order, as vLLM takes them: until tokens or places run out."""
        chunks = []
        for one in order:
            if tokens <= 0:
                break
            if one in self.waiting:
                if len(self.decoding) + len(self.begun) >= self.size.max_num_seqs:
                    break
                del self.waiting[one]
                self.begun[one] = None
            elif one.id in held:
                continue
            chunks.append((one, min(tokens, one.prefill_left)))
            tokens -= chunks[-1][1]
        return chunks

    def _prefill(self, one: Request, tokens: int, now: float) -> bool:
        """Whether it is finished, and with it the first token is there."""
        one.prefill_left -= tokens
        one.prefilled += tokens
        if one.prefill_left:
            return False
        del self.begun[one]
        one.answered += 1
        one.began, one.began_at = now, one.answered
        if one.first_token is None:
            one.first_token = now
        self.decoding.append(one)
        self.context += one.context_offset + one.answered
        return True

    def _advance(self, steps: int) -> None:
        """So many steps of the stretch have ended."""
        streams = self._step.decode_streams
        self.busy_s += self._time_of(steps)
        for one in self.decoding:
            one.answered += steps
        self.last = Step(self._step.prefill_tokens, streams, self.context + (steps - 1) * streams)
        self.context += steps * streams
        self._worked((), steps)

    def _time_of(self, steps: int) -> float:
        return steps * self._step_s + self._growth_s * steps * (steps - 1) / 2

    def _completed(self, elapsed: float) -> int:
        """How many steps of the stretch end within so long: the root of a quadratic, mended where it was rounded."""
        first, growth = self._step_s, self._growth_s
        if growth > 0:
            base = first - growth / 2
            steps = int((math.sqrt(base * base + 2 * growth * elapsed) - base) / growth)
        else:
            steps = int(elapsed / first)
        while steps > 0 and self._time_of(steps) > elapsed:
            steps -= 1
        while self._time_of(steps + 1) <= elapsed:
            steps += 1
        return steps

    def _noise(self, steps: int = 1) -> float:
        """Log-normal, of mean 1. A stretch has one draw, which varies as the mean of its steps does."""
        variance = math.log1p(self._timing.noise**2 / steps)
        return math.exp(self._rng.gauss(-variance / 2, math.sqrt(variance))) if variance else 1.0


class StockEngine(Engine):
    """vLLM's own scheduling: those that run, then first come, first served."""

    def _planned(self, now: float) -> list[tuple[Request, int]]:
        return self._fill([*self.begun, *self.waiting], self.size.max_num_batched_tokens - len(self.decoding))

    def _worked(self, chunks: Iterable[tuple[Request, int]], steps: int) -> None:
        """It keeps no account of who got what..."""

    def _left(self, request: Request) -> None:
        """...nor of who is there."""
