"""What of an aggregate may be told to whoever may not know the single organisation: nothing below a threshold.

Cells below it go (primary suppression). Where what went could be found again by subtraction from a total, the smallest
that is left goes too (secondary suppression; Cox, 1980).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

Cell = TypeVar("Cell")


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A figure, and how many organisations it is of."""

    value: float
    contributors: int


def told(cells: Mapping[Cell, Aggregate], threshold: int) -> dict[Cell, float]:
    """The cells of a table that may be told beside its total.

    Whoever has no contributors says nothing of anybody, and is told.
    """
    hidden = {name for name, cell in cells.items() if 0 < cell.contributors < threshold}
    while hidden and (len(hidden) == 1 or sum(cells[name].contributors for name in hidden) < threshold):
        left = [name for name in cells if name not in hidden and cells[name].contributors]
        if not left:
            break
        hidden.add(min(left, key=lambda name: cells[name].contributors))
    return {name: cell.value for name, cell in cells.items() if name not in hidden}


def total(cells: Mapping[Cell, Aggregate], threshold: int) -> float | None:
    """The total of a table, where it may be told: of organisations enough, and of nothing alone that is hidden."""
    contributors = sum(cell.contributors for cell in cells.values())
    return sum(cell.value for cell in cells.values()) if contributors == 0 or contributors >= threshold else None
