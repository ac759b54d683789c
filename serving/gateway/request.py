"""A generating request at the door, before its body is read."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from starlette.types import Receive, Scope

from serving.gateway import messages
from serving.gateway.body import read_body
from serving.gateway.openai import Limits, read
from serving.http.protocol import LEAVING, Leaving
from serving.replicas.table import Table
from serving.steps.residency import Site
from serving.types import Endpoint, Prompt
from tenants.country import Country

REQUEST_ID = "domicile.request"
"""Where a request's id stands in its scope."""

ENDPOINTS = {endpoint.value: endpoint for endpoint in Endpoint}


class Request:
    """A generating request at the door: :class:`serving.chat.Asked`, and the caller's language."""

    def __init__(self, id: str, scope: Scope, receive: Receive, table: Table, country: Country) -> None:
        self.id = id
        self.headers = headers_of(scope)
        self.endpoint = ENDPOINTS[scope["path"]]
        self.language = language_of(self.headers, country)
        self.scope = scope
        self._receive = receive
        self._table = table

    @property
    def gone(self) -> bool:
        leaving: Leaving = self.scope["extensions"][LEAVING]
        return leaving.gone

    async def prompt(self, site: Site) -> Prompt:
        raw = await read_body(self.scope, self._receive, max_bytes=site.country.gateway.max_body_bytes)
        return read(self.endpoint, raw, Limits(context_length=self._table.longest_context(), country=site.country.code))


def headers_of(scope: Scope) -> Mapping[bytes, bytes]:
    """The headers by name. Repeated ones are joined (RFC 9110, 5.3), so that none hides behind another."""
    pairs: list[tuple[bytes, bytes]] = scope["headers"]
    headers = dict(pairs)
    if len(headers) < len(pairs):
        headers = {name: b", ".join(value for other, value in pairs if other == name) for name in headers}
    return headers


def new_request_id() -> str:
    return f"req_{secrets.token_hex(16)}"


def language_of(headers: Mapping[bytes, bytes], country: Country) -> str:
    accepted = headers.get(b"accept-language")
    return messages.negotiate(accepted.decode("latin-1") if accepted is not None else None, country.languages)
