"""Which countries may be in one cluster on one machine: any that share, or one cell alone (R2)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tenants.country import Country


class NotAlone(ValueError):
    """A cell and another country were to be in one cluster. The text says which, and what to do."""


def alone(chosen: Collection[Country], running: Iterable[Country | str]) -> None:
    """Refuse, before anything starts, what would stop serving as soon as it stood.

    Args:
        running: what is in the cluster already; a code where the country's file cannot be read any more.

    Raises:
        NotAlone: two countries, and one of them is a cell.
    """
    everybody = {_code(one): one for one in (*running, *chosen)}
    for code, one in everybody.items():
        others = sorted(everybody.keys() - {code})
        if isinstance(one, Country) and one.isolation == "cell" and others:
            raise NotAlone(
                f"{code} is a cell (isolation: cell) and wants a cluster of its own, not one with {', '.join(others)}. "
                f"Give it a home of its own: DOMICILE_HOME=… domicile up --country {code}"
            )


def _code(one: Country | str) -> str:
    return one if isinstance(one, str) else one.code
