"""Whether a cell is its country's alone, watched while it serves (R2, R5).

A node with another country's label that joins a cell's Ray cluster stops every gateway and replica of it: from then
on the cluster's head, whose logs and stored code are the cell's, answers to somebody abroad too. What streams already
is let finish, since nothing of it passes through that node. Knows no Ray: who asks it is told how to look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from math import ceil
from typing import Self

import orjson

from serving.errors import Failed, Reason
from serving.placement import Node, strangers
from tenants.country import Country

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""How often a cell looks at its nodes: so long it may serve beside a stranger, and wait once the stranger has left."""

Look = Callable[[], Iterable[Node]]
"""Lists the cluster's living nodes. May block. Raises :class:`Unseen`."""


class Unseen(RuntimeError):
    """The cluster's head does not say which nodes there are."""


class Cell:
    """What one process of a country knows of the strangers beside it. Without :meth:`watched` there are none."""

    def __init__(self) -> None:
        self.strangers: tuple[Node, ...] = ()
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    async def watched(cls, country: Country, look: Look) -> Self:
        """A cell that has looked once, and looks until it is closed. A country that shares its cluster never looks.

        Raises:
            Unseen: nothing may be served before the first look.
        """
        cell = cls()
        if country.isolation == "cell":
            cell._see(country.code, await asyncio.to_thread(look))
            cell._watching = asyncio.create_task(cell._watch(country.code, look))
        return cell

    def close(self) -> None:
        """Look no more."""
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self, country: str, look: Look) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self._see(country, await asyncio.to_thread(look))
            except Unseen as error:
                # A head that is away lets nobody join, and Ray ends the nodes that do not find it again.
                log.warning("the nodes of the cell of %s cannot be listed: %s", country, error)

    def _see(self, country: str, nodes: Iterable[Node]) -> None:
        before, self.strangers = self.strangers, strangers(country, nodes)
        if self.strangers and self.strangers != before:
            log.error("nothing is served: the cell of %s has %s", country, self.told)
        elif before and not self.strangers:
            log.warning("the cell of %s is alone again and serves", country)

    @property
    def told(self) -> str:
        """The strangers, in words for an operator."""
        return ", ".join(f"node {node.id} labelled {node.country}" for node in self.strangers)

    def refusal(self) -> bytes:
        """What a replica answers while there are strangers. Its gateway may not have looked since one of them came."""
        node = self.strangers[0]
        message = f"this cell is not its country's alone: {self.told}"
        return orjson.dumps({"error": {"message": message, "node": node.id, "label": node.country}})


def stranger_in(refusal: bytes) -> Node | None:
    """The stranger that a replica's answer names; ``None`` where it is another kind of answer."""
    try:
        error = orjson.loads(refusal)["error"]
        return Node(str(error["node"]), str(error["label"]))
    except (KeyError, TypeError, ValueError):
        return None


def stopped_by(stranger: Node) -> Failed:
    """What a caller is told as long as a stranger is in the cell."""
    country = stranger.country.upper()
    return Failed(Reason.FOREIGN_NODE_IN_CELL, retry_after_s=ceil(LOOK_S), country=country, name=stranger.id)
