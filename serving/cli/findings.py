"""How findings are told to people."""

from __future__ import annotations

from serving.cli.checks import Finding, Verdict
from serving.cli.output import console

_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def show(name: str, finding: Finding) -> None:
    """One check: its verdict, what it found, and what to do about it."""
    first, *others = finding.found.splitlines()
    colour = _COLOURS[finding.verdict]
    console.print(f"[{colour}]{finding.verdict.value:4}[/]  {name:16}  ", end="")
    console.print(first, markup=False, soft_wrap=True)
    for line in others:
        console.print(f"{'':24}{line}", markup=False, soft_wrap=True)
    if finding.remedy:
        console.print(f"{'':24}→ {finding.remedy}", markup=False, soft_wrap=True)
