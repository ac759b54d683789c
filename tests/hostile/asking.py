"""Asking a country what nobody should, and reading what it says."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from serving.types import Endpoint
from tests.gateway.wire import Answer, answers, exchange
from tests.house import MODEL, Land
from tests.journeys.bodies import ASKED, CHAT, COMPLETIONS, RESPONSES, ask, look_at_headers
from tests.schemas import check

EVERYWHERE = pytest.mark.parametrize("endpoint", list(Endpoint))
IDS = re.compile(rb"req_[0-9a-f]{32}")
QUICKLY_S = 5
"""Far more than it takes, far less than what the abuse would cost."""
PROMPTS = {CHAT: "messages", COMPLETIONS: "prompt", RESPONSES: "input"}


def refused(response: httpx.Response, status: int, code: str | None, param: str | None = None) -> dict[str, Any]:
    """The error of an answer that is one, in OpenAI's shape and with our headers."""
    assert response.status_code == status, response.text
    look_at_headers(response, response.headers["x-domicile-country"])
    check("error", response.json())
    error: dict[str, Any] = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"]
    return error


async def post(
    land: Land, content: object, endpoint: Endpoint = CHAT, organisation: str | None = "acme", **headers: str
) -> httpx.Response:
    """The answer to a body: bytes as they are, anything else as JSON."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    async with land.client(organisation) as client:
        return await client.post(endpoint, content=raw, headers={"content-type": "application/json", **headers})


async def asked(land: Land, endpoint: Endpoint = CHAT, **fields: object) -> httpx.Response:
    return await post(land, {**ASKED[endpoint], **fields}, endpoint)


async def raw(land: Land, head: str, body: bytes = b"") -> Answer:
    """The one answer to bytes on the wire, after which the connection ends."""
    (found,) = answers(await exchange(land.gateway, head.replace("\n", "\r\n").encode("latin-1") + body))
    return found


def bodiless(land: Land, key: str | None, path: str = CHAT, extra: str = "") -> str:
    """The head of a request whose body never comes."""
    authorization = f"Authorization: Bearer {key}\n" if key is not None else ""
    return (
        f"POST {path} HTTP/1.1\nHost: ee.example\n{authorization}Content-Type: application/json\n"
        f"Content-Length: 400\nExpect: 100-continue\n{extra}\n"
    )


async def decided_from_the_head(land: Land, key: str | None, path: str = CHAT, extra: str = "") -> Answer:
    """The answer to headers alone. The client is not invited to send the rest, and the connection ends."""
    received = await exchange(land.gateway, bodiless(land, key, path, extra).replace("\n", "\r\n").encode())
    assert not received.startswith(b"HTTP/1.1 100")
    (found,) = answers(received)
    return found


async def still_serve(*lands: Land) -> None:
    """After all that was done to them."""
    for place in lands:
        async with place.client() as client:
            await ask(client, CHAT, place.country.code)
            assert (await client.get("/v1/models")).json()["data"][0]["id"] == MODEL
