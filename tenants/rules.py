"""The residency rules in a sentence each, and how it is said that something in a file would weaken one (R11)."""

from __future__ import annotations

from collections.abc import Mapping

FLOOR = "floor"
"""The human-rights floor stands beside the rules: see :mod:`tenants.floor`."""

RULES: Mapping[str, str] = {
    "R1": "a key names its country, and only that country's gateways and replicas see its requests",
    "R2": "placement is by the country's hard label, and nothing softens it",
    "R3": "a request at the wrong country is refused from its headers, before its body is read",
    "R4": "a replica refuses a request without a claim for its own country",
    "R5": "a country that is down answers 503, and nobody serves its callers instead",
    "R6": "records, caches and model state stay on the country's own ground",
    "R7": "no prompt or answer text is in any log, metric, trace, error or dump",
    "R8": "nothing phones home, and no code or model comes from abroad unasked",
    "R9": "cached prompts are kept apart between organisations",
    "R10": "every answer has a receipt, and is in the country's audit log",
    "R11": "configuration cannot switch a rule off",
    FLOOR: "some of what protects people is no setting",
}
"""In the order in which they are told."""


class Weakens(ValueError):
    """What a file asks for would weaken a rule. The text is the reason.

    A :class:`ValueError`, so that pydantic takes it from a validator and reports it with its place in the file.
    """

    def __init__(self, rule: str, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.remedy = remedy
