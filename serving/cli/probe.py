"""Ask a country's own address how it is, as anybody on this machine could."""

from __future__ import annotations

import http.client
import ssl
from urllib.parse import urlsplit

from tenants.country import Country

TIMEOUT_S = 2.0


def ready(country: Country) -> bool:
    """Whether the country's own address says that it can serve."""
    return answered(country, "/readyz") == http.client.OK


def answered(country: Country, path: str) -> int | None:
    """The status that the address answers with; ``None`` where nobody does."""
    connection = _connection(country)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _connection(country: Country) -> http.client.HTTPConnection:
    url = urlsplit(country.address)
    if url.scheme == "http":
        return http.client.HTTPConnection(url.netloc, timeout=TIMEOUT_S)
    unverified = ssl._create_unverified_context()  # noqa: S323 (asking oneself needs no proof of identity)
    return http.client.HTTPSConnection(url.netloc, timeout=TIMEOUT_S, context=unverified)
