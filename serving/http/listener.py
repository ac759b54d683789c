"""One address, one ASGI application: uvicorn's protocol machinery inside an event loop that is somebody else's.

No signal handlers, no access log, no lifespan, no ``server`` header, no belief in ``X-Forwarded-For``; HTTP/1.1 only.
The accepting socket is ours rather than uvicorn's, so that processes can share a port, a slow TLS handshake has a
deadline, and stopping has an end.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from functools import partial

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http.protocol import DEFAULT_LIMITS, GuardedProtocol, ListenerLimits, Problem, plain_problem

__all__ = ["Listener", "ListenerLimits", "PortTaken", "Problem", "plain_problem"]

BACKLOG = 2048
POLL_S = 0.02
LINGER_S = 1.0
"""How long a listener that stops answers on idle connections."""


class PortTaken(OSError):
    """Another program listens there and does not share."""


class Listener:
    """Serves ``app`` on ``host``:``port``; port 0 lets the kernel choose.

    ``tls`` is a certificate chain's file and its key's. ``reuse_port`` shares the port with every other process of
    this user that says the same. ``guarded=False`` takes every limit away: only for what no stranger can connect to.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        tls: tuple[str, str] | None = None,
        reuse_port: bool = False,
        guarded: bool = True,
        problem: Problem = plain_problem,
        limits: ListenerLimits = DEFAULT_LIMITS,
    ) -> None:
        self._host = host
        self._port = port
        self._reuse_port = reuse_port
        self._handshake_s = limits.head_s if tls else None
        certificate, key = tls or (None, None)
        self._config = uvicorn.Config(
            app,
            interface="asgi3",
            http=HttpToolsProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            reset_contextvars=True,
            workers=1,
            timeout_keep_alive=int(limits.keep_alive_s),
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._server = uvicorn.Server(self._config)
        protocol = partial(GuardedProtocol, limits=limits, problem=problem) if guarded else HttpToolsProtocol
        self._connect = partial(protocol, self._config, self._server.server_state, {})
        self._acceptor: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that is served; known once started."""
        return self._port

    @property
    def connections(self) -> int:
        """Open connections, idle ones included."""
        return len(self._server.server_state.connections)

    async def start(self) -> None:
        """Listen. Returns when connections are accepted; raises :class:`PortTaken` or another ``OSError``."""
        if not self._config.loaded:
            self._config.load()
        loop = asyncio.get_running_loop()
        bound = await self._bind()
        self._port = bound.getsockname()[1]
        self._acceptor = await loop.create_server(
            self._connect,
            sock=bound,
            ssl=self._config.ssl,
            backlog=BACKLOG,
            ssl_handshake_timeout=self._handshake_s,
        )
        # uvicorn's clock writes the date header once a second.
        await self._server.on_tick(0)
        self._clock = loop.create_task(self._server.main_loop())

    async def stop(self, grace_s: float = 0.0) -> None:
        """Accept nothing more, let requests finish for up to ``grace_s``, then close what is left.

        Who has an idle connection may be about to ask on it: for :data:`LINGER_S` such are answered, and told that
        it was the last time.
        """
        if self._acceptor is None:
            return
        state = self._server.server_state
        self._acceptor.close()
        lingers_s = min(LINGER_S, grace_s)
        for connection in list(state.connections):
            if isinstance(connection, GuardedProtocol) and lingers_s:
                connection.retire()
        await self._emptied(lingers_s)
        for connection in list(state.connections):
            connection.shutdown()
        await self._emptied(grace_s - lingers_s)
        tasks = list(state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(state.connections):
            connection.transport.abort()
        self._clock.cancel()
        with suppress(asyncio.CancelledError):
            await self._clock

    async def _emptied(self, within_s: float) -> None:
        """Return when nobody is connected any more, or after so long."""
        state = self._server.server_state
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while state.connections or state.tasks:  # noqa: ASYNC110 - uvicorn has no event for the last one
                    await asyncio.sleep(POLL_S)

    async def _bind(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        family, kind, proto, _, address = (
            await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        )[0]
        bound = socket.socket(family, kind, proto)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._reuse_port:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind(address)
            bound.listen(BACKLOG)
        except OSError as error:
            bound.close()
            if error.errno != errno.EADDRINUSE:
                raise
            raise PortTaken(
                error.errno, f"{self._host}:{self._port} is in use by a program that does not share it"
            ) from error
        return bound
