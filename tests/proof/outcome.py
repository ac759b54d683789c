"""What a run of the proof suite came to: tests' outcomes, held against the map of rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tests.proof.finding import belongs, proofs
from tests.proof.rules import RULES, Proof, Rule

NOT_RUN = "Not all tests that belong here were run"


class Verdict(StrEnum):
    """Worst first: what is made of several is the first of them."""

    FAILED = "failed"
    NOT_PROVEN = "not proven here"
    PROVEN = "proven"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one test."""

    test: str
    """Its id, with parameters."""
    verdict: Verdict
    seconds: float
    why: str
    """Why it did not pass; empty where it did."""
    seen: tuple[tuple[str, str], ...]
    """What it noted down: a name and a value."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A proof and what became of it."""

    proof: Proof
    outcomes: tuple[Outcome, ...]
    missing: tuple[str, ...]
    """Tests that are named and did not run."""

    @property
    def verdict(self) -> Verdict:
        return worst([*(each.verdict for each in self.outcomes), *(Verdict.NOT_PROVEN for _ in self.missing)])

    @property
    def why(self) -> list[str]:
        """Reasons, each once."""
        reasons = dict.fromkeys(each.why for each in self.outcomes if each.why)
        return [*reasons, NOT_RUN] if self.missing else [*reasons]

    @property
    def seen(self) -> list[tuple[str, str]]:
        """What was noted down, in the order of first mention; numbers of several tests are added up."""
        sums: dict[str, str] = {}
        for name, value in (pair for each in self.outcomes for pair in each.seen):
            known = sums.get(name, "0")
            sums[name] = str(int(known) + int(value)) if known.isdigit() and value.isdigit() else value
        return list(sums.items())


@dataclass(frozen=True, slots=True)
class Judged:
    """A rule and what became of its proofs."""

    rule: Rule
    tried: tuple[Tried, ...]

    @property
    def verdict(self) -> Verdict:
        return worst(each.verdict for each in self.tried)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Nothing tried is nothing proven."""
    seen = set(verdicts)
    return next((verdict for verdict in Verdict if verdict in seen), Verdict.NOT_PROVEN)


def judge(outcomes: Mapping[str, Outcome]) -> list[Judged]:
    """Hold what ran against what is named."""
    return [Judged(rule, tuple(_tried(proof, outcomes) for proof in proofs(rule))) for rule in RULES]


def counted(judged: Iterable[Judged]) -> Counter[Verdict]:
    return Counter(each.verdict for each in judged)


def _tried(proof: Proof, outcomes: Mapping[str, Outcome]) -> Tried:
    found, missing = [], []
    for name in proof.tests:
        ran = [outcome for test, outcome in outcomes.items() if belongs(test, name)]
        found += ran
        if not ran:
            missing.append(name)
    return Tried(proof, tuple(found), tuple(missing))
