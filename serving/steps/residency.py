"""Where a request may be served: at its caller's own country, or nowhere (R1, R2, R3, R5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.errors import Reason, Refused
from serving.replicas.cell import Cell, stopped_by
from serving.types import Caller, Prompt
from tenants.country import Country

COUNTRY_HEADER = b"x-domicile-country"
ORGANISATION_HEADER = b"openai-organization"


@dataclass(frozen=True, slots=True)
class Site:
    """The one country that a request may be served in, found to be the right one for its caller."""

    country: Country
    caller: Caller

    def grant(self, prompt: Prompt) -> None:
        """
        Raises:
            Refused: the country has no such model, or not for this caller; from outside the two look alike.
        """
        if self.country.model(prompt.model) is None or not self.caller.may_use(prompt.model):
            raise Refused(Reason.MODEL_NOT_FOUND, param="model", model=prompt.model)


class Residency:
    """Refuses from the headers alone what names another country or somebody else's organisation."""

    def __init__(self, country: Country, cell: Cell) -> None:
        self._country = country
        self.cell = cell

    def site_for(self, caller: Caller, headers: Mapping[bytes, bytes]) -> Site:
        """
        Raises:
            Refused: the headers name a tenant that is not the caller's.
            Failed: a node of another country is in this one's cell.
        """
        named = headers.get(COUNTRY_HEADER)
        if named is not None and named.strip().lower() != caller.country.encode():
            raise _mismatch(caller, COUNTRY_HEADER)
        organisation = headers.get(ORGANISATION_HEADER)
        if organisation is not None and organisation != caller.organisation.encode():
            raise _mismatch(caller, ORGANISATION_HEADER)
        if caller.country != self._country.code:
            raise Refused(Reason.DATA_RESIDENCY_MISMATCH, country=caller.country.upper())
        if self.cell.strangers:
            raise stopped_by(self.cell.strangers[0])
        return Site(self._country, caller)


def _mismatch(caller: Caller, header: bytes) -> Refused:
    return Refused(Reason.DATA_RESIDENCY_MISMATCH, country=caller.country.upper(), name=header.decode())
