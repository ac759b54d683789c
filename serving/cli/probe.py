"""Ask a country's own address how it is, as anybody on this machine could."""

from __future__ import annotations

import http.client
import json
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

from tenants.country import Country

TIMEOUT_S = 2.0
LONGEST = 64 * 1024


def ready(country: Country) -> bool:
    """Whether the country's own address says that it can serve."""
    return answered(country, "/readyz") == http.client.OK


def answered(country: Country, path: str) -> int | None:
    """The status that the address answers with; ``None`` where nobody does."""
    return _asked(country, path)[0]


def stopped(country: Country) -> str:
    """Why the country's own address says that it has stopped serving; empty where it says no such thing."""
    with suppress(ValueError, AttributeError):
        return str(json.loads(_asked(country, "/readyz")[1]).get("reason", ""))
    return ""


def _asked(country: Country, path: str) -> tuple[int | None, bytes]:
    connection = _connection(country)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(LONGEST)
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()


def _connection(country: Country) -> http.client.HTTPConnection:
    url = urlsplit(country.address)
    if url.scheme == "http":
        return http.client.HTTPConnection(url.netloc, timeout=TIMEOUT_S)
    unverified = ssl._create_unverified_context()  # noqa: S323 (asking oneself needs no proof of identity)
    return http.client.HTTPSConnection(url.netloc, timeout=TIMEOUT_S, context=unverified)
