"""Who uses a country's service, and with which keys. Pure nouns; the store keeps them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tenants.country import Country

ORGANISATION_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class Plan(StrEnum):
    """What an organisation has agreed on."""

    FREE = "free"
    STANDARD = "standard"
    STARTUP = "startup"
    BATCH = "batch"

    @property
    def service_class(self) -> str:
        """Value of the ``ServiceClass`` that the plan's requests are served in."""
        return _SERVICE_CLASSES[self]

    @property
    def weight(self) -> float:
        """The organisation's share of an engine that others want too, over theirs."""
        return _WEIGHTS[self]


_SERVICE_CLASSES = {
    Plan.FREE: "standard",
    Plan.STANDARD: "standard",
    Plan.STARTUP: "interactive",
    Plan.BATCH: "batch",
}
_WEIGHTS = {Plan.FREE: 1.0, Plan.STANDARD: 2.0, Plan.STARTUP: 4.0, Plan.BATCH: 2.0}


@dataclass(frozen=True, slots=True)
class Organisation:
    """A customer within one country. Raises :class:`ValueError` for an id that is not a DNS-like label."""

    country: str
    id: str
    plan: Plan
    models: frozenset[str] | None
    """Model ids granted by name; ``None`` grants every model that the country grants to all."""

    created: datetime

    def __post_init__(self) -> None:
        if not ORGANISATION_ID.fullmatch(self.id):
            raise ValueError(
                f"'{self.id}' cannot name an organisation: use 1 to 63 lower-case letters, digits and inner hyphens"
            )

    def may_use(self, country: Country) -> frozenset[str]:
        """Ids of the country's models that this organisation may call."""
        if self.models is None:
            return frozenset(model.id for model in country.models if model.granted == "all")
        return self.models & frozenset(model.id for model in country.models)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key. The key itself cannot be found from it."""

    id: str
    country: str
    organisation: str
    digest: bytes
    """HMAC-SHA256 of the key under the country's pepper."""

    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    def valid(self, now: datetime) -> bool:
        """Whether the key opens anything at ``now``."""
        return self.revoked is None and (self.expires is None or now < self.expires)
