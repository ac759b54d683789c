"""From the map of rules to the tests in the files: those that are named, and those that carry a rule's name."""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path

from tests.proof.rules import JOURNEY, RULES, Proof, Rule

ROOT = Path(__file__).parents[2]
FURTHER = "Further tests that are named after this rule where the programs themselves are tested."
_HOUSED = re.compile(r"^pytestmark = .*mark\.(?:ray|engine)\b", re.MULTILINE)


def proofs(rule: Rule) -> tuple[Proof, ...]:
    """Those of the rule, and what else in the test suite carries its name: so nothing that does is left out."""
    known = [test for proof in rule.proofs for test in proof.tests]
    further = tuple(
        test
        for test in carrying(rule.code)
        if not any(belongs(test, name) for name in known) and not test.startswith(JOURNEY)
    )
    return (*rule.proofs, Proof(FURTHER, further)) if further else rule.proofs


def named() -> Iterator[str]:
    """Every test that is named, each once: the quick ones first, then the journey in its own order."""
    tests = dict.fromkeys(test for rule in RULES for proof in proofs(rule) for test in proof.tests)
    yield from (test for test in tests if not test.startswith(JOURNEY) and not _within(test, tests))
    yield from JOURNEY


def _within(test: str, tests: Container[str]) -> bool:
    file, _, function = test.partition("::")
    return bool(function) and file in tests


def belongs(test: str, name: str) -> bool:
    """Whether a test's id, parameters and all, is meant by a name in the map."""
    return test == name or test.startswith((f"{name}[", f"{name}::"))


def carrying(code: str) -> list[str]:
    """Tests that are called after a rule; not those that need a house of their own, for which there is no room."""
    begins = f"test_{code.lower()}_"
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [
        f"{path.relative_to(ROOT)}::{name}"
        for path in files
        if str(path.relative_to(ROOT)) in JOURNEY or _HOUSED.search(path.read_text()) is None
        for name in functions(path)
        if name.startswith(begins)
    ]


@cache
def functions(file: Path) -> list[str]:
    """The tests in a file, in their order."""
    body = ast.parse(file.read_text()).body
    found = [each.name for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [name for name in found if name.startswith("test_")]
