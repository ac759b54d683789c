"""How long an engine's step takes, learned while it runs.

``seconds = fixed + a * prefill tokens + b * decoding streams + c * context tokens``, fitted by recursive least squares
in information form with four departures from the textbook (Haykin, "Adaptive Filter Theory", 4th ed., chapter 9):

- The residual is relative to the longer of the predicted and the measured time, so that a short step counts as much as
  a long one and no single measurement can be off by more than 1.
- A step makes the model forget only about what was in it (as in Kulhavy's directional forgetting): hours of decoding
  leave what a prefill token costs as it was known.
- Coefficients stay at zero or above, by projected coordinate descent from where they were.
- All of them are multiplied by the machine's present pace, the mean of the last few ratios of measured to fitted. A
  machine that others use too is slower for seconds at a time, which the coefficients should not learn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Self

from serving.batching.jobs import Speed

SHORTEST_S, LONGEST_S = 1e-6, 60.0
"""No step takes less or more: what does was a clock that jumped or a machine that slept."""
PROFILE_PROMPTS = (8, 32, 64, 128, 16, 96)
PROFILE_STREAMS = (1, 4, 8)
PROFILE_ANSWER = 8
"""Tokens with which an engine is warmed before it serves. All of it takes a slow CPU two or three seconds."""
_KEEP = 0.998**0.5
"""Square root of how much an observation still weighs at the next one: half of it is forgotten in 350 steps..."""
_KEEP_SHIFTED = 0.95**0.5
"""...and in 14 while residuals are on one side, which they are after the engine has changed."""
_ONE_SIDED = 0.7
"""Share of the mean error that the mean residual, sign included, does not reach by chance."""
_BIAS_PACE = 0.1
_PRIOR_WEIGHT = 1e-4
"""Of an observation, so that the first real ones outweigh the prior even where it is off by a factor of 50."""
_LEARNING = 50
"""Observations during which all is believed, and solved more thoroughly."""
_SWEEPS = (20, 2)
_PACE_MEMORY = 0.15
"""How much the last step's ratio counts. On two shared cores the ratios of steps that follow each other correlate by
0.55, of those ten apart by 0.25. What ten steps in a row are off by was 29% or more for one in twenty, and is 13%."""
_PACE_AT_ONCE = 0.4
"""Logarithm of the largest ratio that one step counts with."""
_PACE_AT_MOST = math.log(2)
_BELIEVABLE = 8.0
"""Factor between measured and predicted beyond which a measurement is not believed..."""
_INSISTENCE = 16
"""...unless so many in a row say so: then the engine is another, and learning starts anew."""
LEAST_CHUNK = 32
"""Prefill goes on by at least so many tokens a step, whatever was promised: else it would starve."""
_ERROR_PACE = 0.02


@dataclass(frozen=True, slots=True)
class Step:
    """What is in one engine step."""

    prefill_tokens: int
    decode_streams: int
    context_tokens: int
    """Tokens already in the KV cache that its attention reads, over all decoding streams."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """What a step costs, in seconds. The default suits a small model on a few CPU cores, and errs on the slow side."""

    fixed_s: float = 0.01
    prefill_token_s: float = 1e-3
    decode_stream_s: float = 2e-3
    context_token_s: float = 1e-6

    @property
    def usable(self) -> bool:
        return all(0 <= figure < math.inf for figure in astuple(self))


PRIOR = Coefficients()


class StepTime:
    """The model of one engine, in its own process or anywhere else."""

    def __init__(self, prior: Coefficients = PRIOR) -> None:
        """Raises ``ValueError`` for a prior that is negative or not finite."""
        if not prior.usable:
            raise ValueError("coefficients are finite and not negative")
        # Every coefficient is kept as a multiple of its scale: the four differ by powers of ten.
        self._scale: list[float] = [
            max(own, default * 1e-3) for own, default in zip(astuple(prior), astuple(PRIOR), strict=True)
        ]
        self._value: list[float] = [own / scale for own, scale in zip(astuple(prior), self._scale, strict=True)]
        self._learned = 0
        self._unbelieved = 0
        self._pace, self._log_pace = 1.0, 0.0
        self._start_over()
        self._error = 0.0
        self._bias = 0.0
        self.observations = 0
        """Steps that the fit has seen."""
        self.ignored = 0
        """Steps that it was spared: nothing in them, or a time that cannot be."""

    @classmethod
    def of(cls, coefficients: Coefficients) -> Self:
        """A model that starts from another's coefficients, and goes on learning where it is fed."""
        return cls(coefficients)

    @property
    def coefficients(self) -> Coefficients:
        """At the present pace."""
        pace = self._pace
        return Coefficients(*(pace * value * scale for value, scale in zip(self._value, self._scale, strict=True)))

    @property
    def error(self) -> float:
        """Mean of ``|predicted / measured - 1|``, each prediction made before its measurement, forgetting old ones."""
        return self._error

    def predict(self, step: Step) -> float:
        """Seconds the step will take."""
        return self._pace * self._fitted(step)

    def _fitted(self, step: Step) -> float:
        fixed, prefill, decode, context = self._value
        of_fixed, of_prefill, of_decode, of_context = self._scale
        return (
            fixed * of_fixed
            + prefill * of_prefill * step.prefill_tokens
            + decode * of_decode * step.decode_streams
            + context * of_context * step.context_tokens
        )

    def observe(self, step: Step, seconds: float) -> None:
        """Learn from a step that took so long. What cannot be true is counted in :attr:`ignored` and left at that."""
        if not SHORTEST_S <= seconds <= LONGEST_S or not _sensible(step):
            self.ignored += 1
            return
        fitted = self._fitted(step)
        predicted = self._pace * fitted
        if self._learned >= _LEARNING and not 1 / _BELIEVABLE <= predicted / seconds <= _BELIEVABLE:
            self._unbelieved += 1
            if self._unbelieved < _INSISTENCE:
                self.ignored += 1
                return
            self._start_over()
        self._unbelieved = 0
        self._learned += 1
        self.observations += 1
        grown = self._learned > _LEARNING
        self._error += max(_ERROR_PACE, 1 / self.observations) * (abs(predicted / seconds - 1) - self._error)
        measure = max(seconds, fitted) if grown else seconds
        residual = (seconds - fitted) / measure
        self._bias += _BIAS_PACE * (residual - self._bias)
        shifted = grown and abs(self._bias) > _ONE_SIDED * self._error
        row = [scale * feature / measure for scale, feature in zip(self._scale, _features(step), strict=True)]
        self._update(row, residual, _KEEP_SHIFTED if shifted else _KEEP)
        for _ in range(_SWEEPS[grown]):
            self._descend()
        if grown:
            self._follow(math.log(seconds / fitted))

    def _follow(self, ratio: float) -> None:
        """Be as fast or slow as the machine was in the last few steps."""
        seen = max(-_PACE_AT_ONCE, min(_PACE_AT_ONCE, ratio - self._log_pace))
        pace = self._log_pace + _PACE_MEMORY * seen
        self._log_pace = max(-_PACE_AT_MOST, min(_PACE_AT_MOST, pace))
        self._pace = math.exp(self._log_pace)

    def chunk(
        self, within_s: float, decode_streams: int, context_tokens: int, *, at_most: int, at_least: int = 0
    ) -> int:
        """The most prefill tokens for which a step beside these streams is predicted to take ``within_s`` at most.

        Never more than ``at_most``; never less than ``at_least`` otherwise, whatever the time.
        """
        known = self.coefficients
        left = within_s - self.predict(Step(0, decode_streams, context_tokens))
        if not left > 0:
            fitting = 0
        elif known.prefill_token_s * at_most <= left:
            fitting = at_most
        else:
            fitting = int(left / known.prefill_token_s)
        return max(0, min(at_most, max(at_least, fitting)))

    def speed(self, slots: int, context_tokens: int, *, decode_streams: int = 0, within_s: float = math.inf) -> Speed:
        """What tokens cost, for the policy.

        Args:
            slots: streams at most.
            context_tokens: of one stream, typically.
            decode_streams: streams that decode at present, beside which a prefill has to go on...
            within_s: ...in steps that take no longer.
        """
        known = self.coefficients
        full = self.predict(Step(0, slots, slots * context_tokens))
        beside = self.predict(Step(0, decode_streams, decode_streams * context_tokens)) if decode_streams else 0.0
        # Where streams alone break the inter-token promise, prefill goes on by the least chunk all the same.
        prefill = max(within_s - beside, LEAST_CHUNK * known.prefill_token_s)
        slowdown = (beside + prefill) / prefill if 0 < prefill < math.inf else 1.0
        return Speed(
            prefill_s=known.prefill_token_s,
            answer_s=full / max(1, slots),
            slots=max(1, slots),
            step_s=self.predict(Step(0, decode_streams, decode_streams * context_tokens)),
            slowdown=max(1.0, slowdown),
        )

    def _start_over(self) -> None:
        """Trust the coefficients no more than a guess."""
        self._information = [[_PRIOR_WEIGHT if row == column else 0.0 for column in range(4)] for row in range(4)]
        self._gradient = [0.0] * 4
        self._learned = 0
        self._pace, self._log_pace = 1.0, 0.0

    def _update(self, row: Sequence[float], residual: float, keep: float) -> None:
        """One observation more: ``gradient`` is that of the fit at the present coefficients, downhill."""
        kept = [keep if share > 0 else 1.0 for share in row]
        k0, k1, k2, k3 = kept
        r0, r1, r2, r3 = row
        gradient = self._gradient
        for i, line in enumerate(self._information):
            own, pull = kept[i], row[i]
            line[0] = own * k0 * line[0] + pull * r0
            line[1] = own * k1 * line[1] + pull * r1
            line[2] = own * k2 * line[2] + pull * r2
            line[3] = own * k3 * line[3] + pull * r3
            gradient[i] = own * gradient[i] + pull * residual

    def _descend(self) -> None:
        """One sweep of coordinate descent."""
        gradient, value = self._gradient, self._value
        for i, line in enumerate(self._information):
            old = value[i]
            new = old + gradient[i] / line[i]
            if new < 0:
                new = 0.0
            moved = new - old
            if moved:
                value[i] = new
                gradient[0] -= line[0] * moved
                gradient[1] -= line[1] * moved
                gradient[2] -= line[2] * moved
                gradient[3] -= line[3] * moved


def _features(step: Step) -> tuple[int, int, int, int]:
    return 1, step.prefill_tokens, step.decode_streams, step.context_tokens


def _sensible(step: Step) -> bool:
    figures = (step.prefill_tokens, step.decode_streams, step.context_tokens)
    return all(0 <= figure < math.inf for figure in figures) and step.prefill_tokens + step.decode_streams > 0
