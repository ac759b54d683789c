"""How long prompts and answers are: as in published traces, or in the user's own.

A published length is drawn by inversion: its quantile function at a uniform number. The figures are in
:mod:`loadtests.planning.published`, with their sources.
"""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.planning.arrivals import Family, zipf
from loadtests.planning.published import PUBLISHED, SERVEGEN_CV, SERVEGEN_GAMMA, SERVEGEN_SKEW, Quantiles
from loadtests.scenario import Lengths
from tenants.errors import Problem, TenantError, suggestion

LONG_GAP_S = 3600.0
_SHOWN = 5
_BATCH = 256


def lengths(spec: Lengths, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Prompt and output tokens of one request after the other, without end. Each is at least 1."""
    if spec.trace is None:
        while True:
            yield fitted(spec.prompt or 1, spec.output or 1, spec)
    published = PUBLISHED[spec.trace]
    prompts, outputs = quantile_draws(published.prompt, rng), quantile_draws(published.output, rng)
    while True:
        yield fitted(next(prompts), next(outputs), spec)


def fitted(prompt: float, output: float, spec: Lengths) -> tuple[int, int]:
    """Scaled, then cut to the limits."""
    return (
        max(1, min(round(prompt * spec.prompt_scale), spec.prompt_limit)),
        max(1, min(round(output * spec.output_scale), spec.output_limit)),
    )


def quantile_draws(quantiles: Quantiles, rng: random.Random) -> Iterator[float]:
    """Values with the given quantile function, log-linear between its points, without end."""
    probabilities, values = zip(*quantiles, strict=True)
    logs = np.log(values)
    while True:
        yield from np.exp(np.interp([rng.random() for _ in range(_BATCH)], probabilities, logs)).tolist()


@dataclass(frozen=True, slots=True)
class Client:
    """One of ServeGen's clients: its share of the load and how it asks."""

    share: float
    cv: float
    family: Family


def clients(count: int, rng: random.Random, skew: float = SERVEGEN_SKEW) -> tuple[Client, ...]:
    """A mix of clients like m-large's, the busiest first."""
    varied = quantile_draws(SERVEGEN_CV, rng)
    return tuple(
        Client(share, next(varied), "gamma" if rng.random() < SERVEGEN_GAMMA else "weibull")
        for share in zipf(count, skew)
    )


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of the user's own trace."""

    at: float
    """Seconds since whenever: only differences count."""
    prompt_tokens: int
    output_tokens: int
    organisation: str = ""
    session: str = ""
    """Rows of the same one are turns of one conversation, in their order."""
    shared_tokens: int | None = None
    """How much of the prompt's beginning all requests of the organisation share."""


_REQUIRED = ("at", "prompt_tokens", "output_tokens")
_OPTIONAL = ("organisation", "session", "shared_tokens")
_KEYS = (*_REQUIRED, *_OPTIONAL)


def read_trace(path: Path) -> tuple[TraceRow, ...]:
    """A trace as JSON Lines: one object a line, sorted by ``at``, with the fields of :class:`TraceRow`.

    Warns where nothing comes for more than an hour. Raises :class:`tenants.errors.TenantError` with the first problems
    by line, and how many more there are.
    """
    try:
        lines = path.read_bytes().rstrip().splitlines()
    except OSError as error:
        raise TenantError(path, [Problem("", f"cannot be read: {error.strerror}")]) from error
    if not lines:
        raise TenantError(path, [Problem("", "is empty: a trace needs at least one request")])
    rows: list[TraceRow] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        found = _parsed(line)
        before = rows[-1].at if rows else None
        complaints = found if isinstance(found, tuple) else tuple(_disorder(found, before))
        problems += [Problem(f"line {number}", complaint) for complaint in complaints]
        if not isinstance(found, tuple):
            _warn_of_gap(path, number, found.at, before)
            rows.append(found)
    if problems:
        raise TenantError(path, _first(problems))
    return tuple(rows)


def _first(problems: list[Problem]) -> Iterable[Problem]:
    yield from islice(problems, _SHOWN)
    if len(problems) > _SHOWN:
        yield Problem("", f"and {len(problems) - _SHOWN} more problems")


def _disorder(row: TraceRow, before: float | None) -> Iterator[str]:
    if before is not None and row.at < before:
        yield f"at is {row.at:g}, before the line above ({before:g}): sort the trace by time"


def _warn_of_gap(path: Path, number: int, at: float, before: float | None) -> None:
    if before is not None and at - before > LONG_GAP_S:
        gap_h = (at - before) / 3600
        warnings.warn(f"{path}: line {number}: nothing comes for {gap_h:.1f} hours before it", stacklevel=3)


def _parsed(line: bytes) -> TraceRow | tuple[str, ...]:
    """The row, or what is wrong with it."""
    if not line.strip():
        return ("is blank",)
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        return (f"is not JSON: {error}",)
    if not isinstance(raw, dict):
        return ("is not a JSON object",)
    complaints = tuple(_complaints(raw))
    if complaints:
        return complaints
    return TraceRow(
        float(raw["at"]),
        raw["prompt_tokens"],
        raw["output_tokens"],
        raw.get("organisation", ""),
        str(raw.get("session", "")),
        raw.get("shared_tokens"),
    )


def _complaints(raw: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"unknown key '{key}'{suggestion(key, _KEYS)}" for key in raw if key not in _KEYS)
    yield from (f"{key} is missing" for key in _REQUIRED if key not in raw)
    if "at" in raw and not _is_time(raw["at"]):
        yield f"at must be a finite number of seconds, 0 or more (given: {raw['at']!r:.40})"
    for key in ("prompt_tokens", "output_tokens"):
        if key in raw and not _is_count(raw[key], 1):
            yield f"{key} must be a whole number, 1 or more (given: {raw[key]!r:.40})"
    if "shared_tokens" in raw and not _is_shared(raw):
        yield f"shared_tokens must be a whole number, 0 to prompt_tokens (given: {raw['shared_tokens']!r:.40})"
    if "organisation" in raw and not (isinstance(raw["organisation"], str) and raw["organisation"]):
        yield f"organisation must be a name (given: {raw['organisation']!r:.40})"
    if "session" in raw and (isinstance(raw["session"], bool) or not isinstance(raw["session"], str | int)):
        yield f"session must be a name or a whole number (given: {raw['session']!r:.40})"


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    except OverflowError:
        return False


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_shared(raw: Mapping[str, Any]) -> bool:
    prompt, shared = raw.get("prompt_tokens"), raw["shared_tokens"]
    return _is_count(shared, 0) and (not _is_count(prompt, 1) or shared <= prompt)
