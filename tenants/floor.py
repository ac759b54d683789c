"""The human-rights floor: what no tenant file may go below, whatever a country's law or contract says.

The list is short and explicit on purpose. Who adds to it adds an entry here, and plan refuses what goes below it
(R11); who adds a setting that touches one of these gives it a validator that asks here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tenants.rules import FLOOR, Weakens

SAFETY_POLICIES = ("standard",)
"""Policies that are at the floor or above it."""

RETENTION_DAYS = 183
"""How long audit records and receipts are kept at least: six months, as Regulation (EU) 2024/1689 (AI Act) asks of logs
in articles 19 and 26(6). `domicile audit retain` takes no less."""

THE_FLOOR: Mapping[str, str] = MappingProxyType(
    {
        "safety": f"the safety policy is one of {', '.join(SAFETY_POLICIES)}, for every organisation",
        "audit": "what was done is in an audit log that shows when it was touched",
        "receipts": "whoever got an answer can have a receipt that a stranger can verify",
        "retention": f"audit records and receipts are kept for {RETENTION_DAYS} days at least",
    }
)
"""What is held, by the word under which somebody would look for it."""


def safety_policy(name: object) -> object:
    """Raise :class:`Weakens` for a policy that is not known to be at the floor."""
    if name not in SAFETY_POLICIES:
        raise Weakens(FLOOR, THE_FLOOR["safety"], f"write policy: {SAFETY_POLICIES[0]}, or leave safety out")
    return name
