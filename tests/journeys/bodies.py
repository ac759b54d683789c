"""What callers ask in these journeys, and how an answer is looked at on its way to them."""

from __future__ import annotations

import re
from typing import Any

import httpx

from serving.types import Endpoint
from tests.house import MODEL
from tests.loopback import Event, events
from tests.schemas import check

CHAT, COMPLETIONS, RESPONSES = Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES
SCHEMAS = {CHAT: "chat_completion", COMPLETIONS: "completion", RESPONSES: "response"}
SEA = [{"role": "user", "content": "Tell me of the sea."}]
ASKED: dict[Endpoint, dict[str, Any]] = {
    CHAT: {"model": MODEL, "messages": SEA},
    COMPLETIONS: {"model": MODEL, "prompt": "Once upon a time"},
    RESPONSES: {"model": MODEL, "input": "Tell me of the sea."},
}
WEATHER: Any = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Tallinn", "Seoul"]}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
FORECAST: Any = {"type": "function", "function": {"name": "forecast", "parameters": WEATHER}}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER, "strict": True}}
REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")


def look_at_headers(response: httpx.Response, country: str) -> None:
    """The headers that every answer has."""
    assert REQUEST_ID.fullmatch(response.headers["x-request-id"])
    assert response.headers["x-domicile-country"] == country
    assert response.headers["x-domicile-site"].startswith(f"{country}-")


async def ask(client: httpx.AsyncClient, endpoint: Endpoint, country: str = "ee", **fields: object) -> dict[str, Any]:
    """A whole answer that OpenAI's schema allows."""
    response = await client.post(endpoint, json={**ASKED[endpoint], **fields})
    assert response.status_code == 200, response.text
    look_at_headers(response, country)
    assert int(response.headers["openai-processing-ms"]) >= 0
    answer: dict[str, Any] = response.json()
    check(SCHEMAS[endpoint], answer)
    return answer


async def ask_stream(
    client: httpx.AsyncClient, endpoint: Endpoint, country: str = "ee", **fields: object
) -> list[Event]:
    """The events of a streamed answer that came to its end, without ``[DONE]``. OpenAI's schema allows each."""
    response = await client.post(endpoint, json={**ASKED[endpoint], "stream": True, **fields})
    assert response.status_code == 200, response.text
    look_at_headers(response, country)
    assert response.headers["content-type"].startswith("text/event-stream")
    found = events(response.content)
    if endpoint is not RESPONSES:
        assert found.pop().data == "[DONE]"
    for event in found:
        check("response_event" if endpoint is RESPONSES else f"{SCHEMAS[endpoint]}_chunk", event.json())
    return found


def text_of(chunks: list[Event], index: int = 0) -> str:
    """The text of one choice of a streamed answer."""
    choices = [choice for chunk in chunks for choice in chunk.json()["choices"] if choice["index"] == index]
    return "".join(choice["text"] if "text" in choice else choice["delta"].get("content") or "" for choice in choices)
