"""Who is asking: from the request's headers alone, before a byte of its body is read (R3)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from serving.errors import Reason, Refused
from serving.types import Caller, ServiceClass
from tenants.country import Country
from tenants.keyring import Keyring, parse

_BEARER = b"bearer "


class Authenticator:
    """Turns a bearer key into a :class:`Caller` of one country. Nothing else makes a ``Caller``."""

    def __init__(self, country: Country, keyring: Keyring, addresses: Mapping[str, str]) -> None:
        """
        Args:
            addresses: country code to the base URL its callers use, for telling the lost where to go.
        """
        self._country = country
        self._keyring = keyring
        self._addresses = addresses

    def __call__(self, headers: Mapping[bytes, bytes]) -> Caller:
        """
        Raises:
            Refused: no key; a key of another country; a key that opens nothing, for whatever reason.
        """
        authorization = headers.get(b"authorization", b"")
        token = authorization[7:].strip().decode("latin-1")
        if authorization[:7].lower() != _BEARER or not token:
            raise Refused(Reason.NO_KEY)
        identified = self._keyring.identify(token, datetime.now(UTC))
        if identified is None:
            raise self._stranger(token)
        organisation = identified.organisation
        return Caller(
            country=organisation.country,
            organisation=organisation.id,
            key_id=identified.key.id,
            service_class=ServiceClass(organisation.plan.service_class),
            models=organisation.may_use(self._country),
            weight=organisation.plan.weight,
        )

    def _stranger(self, token: str) -> Refused:
        key = parse(token)
        if key is not None and key.country != self._country.code and key.country in self._addresses:
            address = f"{self._addresses[key.country]}/v1"
            return Refused(Reason.INCORRECT_HOSTNAME, country=key.country.upper(), address=address)
        return Refused(Reason.INVALID_API_KEY)
