"""Is every endpoint there, does it speak the OpenAI API, and does it have the model? Asked before anything is sent.

Every complaint is one sentence that names the country and its address, since a load test against the wrong address
otherwise fails in ten thousand requests that all say the same.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from loadtests.targets import Country, Targets
from tenants.errors import suggestion

PATIENCE_S = 10.0
"""``GET /v1/models`` generates nothing: a service that needs longer for it cannot be load tested either."""
_MAX_BYTES = 4 * 1024 * 1024


class Unfit(Exception):
    """Why an endpoint cannot be load tested; what follows the country's name in a sentence."""


def complaints(targets: Targets, countries: Iterable[str]) -> tuple[str, ...]:
    """What is wrong with the endpoints of ``countries`` on every side; nothing, when all can be tested."""
    wanted = tuple(countries)
    found: list[str] = []
    asked: list[tuple[str, Country]] = []
    for side in targets.sides:
        known = {country.code: country for country in side.countries}
        for code in wanted:
            if code in known:
                asked.append((side.name, known[code]))
            else:
                found.append(f"{code} of {side.name}: the targets do not have it; they have {', '.join(known)}")
    with ThreadPoolExecutor(max_workers=16) as pool:
        found += filter(None, pool.map(lambda one: _complaint(*one), asked))
    return tuple(found)


def _complaint(side: str, country: Country) -> str | None:
    try:
        check(country)
    except Unfit as unfit:
        return f"{country.code} of {side} ({country.base_url}): {unfit}"
    return None


def check(country: Country) -> None:
    """Raises :class:`Unfit`."""
    status, kind, body = _get(country)
    if "html" in kind or body.lstrip()[:1] == b"<":
        raise Unfit("answers with a web page (HTML) and not as the OpenAI API does: is base_url right?")
    if status in (401, 403):
        key = country.organisations[0].id if country.organisations else None
        raise Unfit(f"does not accept the key of '{key}' ({status})" if key else f"asks for a key ({status})")
    if status != 200:
        raise Unfit(f"answers GET /v1/models with {status}{_said(body)}")
    models = _models(body)
    if country.model not in models:
        hint = suggestion(country.model, models) or f"; it has {', '.join(sorted(models)) or 'none'}"
        raise Unfit(f"has no model '{country.model}'{hint}")


def _models(body: bytes) -> frozenset[str]:
    try:
        return frozenset(str(model["id"]) for model in json.loads(body)["data"])
    except (ValueError, TypeError, KeyError):
        raise Unfit("answers GET /v1/models with something that is no list of models: is base_url right?") from None


def _said(body: bytes) -> str:
    try:
        return f": {json.loads(body)['error']['message']}"
    except (ValueError, TypeError, KeyError):
        return ""


def _get(country: Country) -> tuple[int, str, bytes]:
    """Status, content type and body of ``GET /v1/models``."""
    try:
        connection = _connection(country)
        try:
            connection.request("GET", "/v1/models", headers=_headers(country))
            answer = connection.getresponse()
            return answer.status, answer.headers.get("content-type", "").lower(), answer.read(_MAX_BYTES)
        finally:
            connection.close()
    except ssl.SSLCertVerificationError as error:
        raise Unfit(f"its certificate is not to be trusted: {error.verify_message}; name its authority as ca") from None
    except ssl.SSLError as error:
        raise Unfit(f"the TLS handshake failed ({error.reason or error}): is it http?") from None
    except TimeoutError:
        raise Unfit(f"did not answer within {PATIENCE_S:g} s") from None
    except ConnectionRefusedError:
        raise Unfit("nobody listens there (connection refused): is it up?") from None
    except socket.gaierror as error:
        raise Unfit(f"its host has no address: {error.strerror}") from None
    except http.client.HTTPException:
        raise Unfit("does not answer in HTTP: is it https, or another service's port?") from None
    except (OSError, ValueError) as error:
        raise Unfit(f"cannot be reached: {error}") from None


def _connection(country: Country) -> http.client.HTTPConnection:
    parts = urlsplit(country.origin)
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.netloc, timeout=PATIENCE_S)
    try:
        context = ssl.create_default_context(cafile=str(country.ca) if country.ca else None)
    except OSError as error:
        raise Unfit(f"its ca, {country.ca}, cannot be read: {error.strerror or error}") from None
    return http.client.HTTPSConnection(parts.netloc, timeout=PATIENCE_S, context=context)


def _headers(country: Country) -> dict[str, str]:
    key = country.organisations[0].key if country.organisations else ""
    return {"accept": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
