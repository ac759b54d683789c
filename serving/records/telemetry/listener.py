"""Where Prometheus reads a gateway's figures: a private port, apart from the one that callers know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.types import Receive, Scope, Send

from serving.http.listener import Listener, PortTaken
from tenants.country import METRICS_PORTS

LOOPBACK = "127.0.0.1"
PATH = "/metrics"
Page = Callable[[], bytes]


async def private(page: Page, host: str, port: int) -> Listener:
    """A listener on the first port from ``port`` on that nobody has; processes of a country share none.

    Raises:
        PortTaken: all ten are taken.
    """
    for tried in range(port, port + METRICS_PORTS if port else 1):
        listener = Listener(_served(page), host=host, port=tried)
        try:
            await listener.start()
        except PortTaken:
            continue
        return listener
    raise PortTaken(f"no port for metrics from {port} to {port + METRICS_PORTS - 1} is free on {host}")


def _served(page: Page) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        asked = (scope["method"], scope["path"]) == ("GET", PATH)
        body = page() if asked else b""
        headers = [(b"content-length", b"%d" % len(body))]
        if asked:
            headers.append((b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode()))
        await send({"type": "http.response.start", "status": 200 if asked else 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return served
