"""Carry a request to the chosen replica and its answer back, as bytes.

A replica that cannot be reached, or is lost before the first byte of its answer, has served nothing: another one of
the same country is asked instead. One that is lost later ends the stream with an error.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Set
from contextlib import aclosing, asynccontextmanager
from itertools import count
from time import monotonic, time

from serving.errors import OVERLOADED_RETRY_AFTER_S, Failed, Reason
from serving.placement import Replica
from serving.replicas.claim import HEADER, LIFETIME_S, CellKey, Claim
from serving.replicas.table import Table
from serving.replicas.upstream import Broken, Exchange, Rejected, Unreachable, Upstream
from serving.types import TOKENIZE, Caller, Prompt

MAX_ATTEMPTS = 4
MAX_LOST = 2
"""Replicas that one request may be lost with: the request itself may be what ends them."""
RETRY_AFTER_S = 5
"""Serve notices a dead replica within seconds and starts another; a caller that waits this long loses little."""
_BYTES_PER_TOKEN = 4
_SERVICE_UNAVAILABLE = 503

Choose = Callable[[Caller, Prompt, Set[str]], Replica | None]
"""Who serves best, of those whose ids are not in the set."""


class Relay:
    """Serves the requests of one country from its own replicas."""

    def __init__(
        self, choose: Choose, table: Table, upstream: Upstream, key: CellKey, country: str, deadline_s: float
    ) -> None:
        """
        Args:
            deadline_s: how long a whole answer may take.
        """
        self._choose = choose
        self._table = table
        self._upstream = upstream
        self._key = key
        self._country = country
        self._deadline_s = deadline_s
        self._serial = count()

    def __call__(self, caller: Caller, prompt: Prompt, request_id: str, tried: set[str]) -> AsyncGenerator[bytes, None]:
        """The engine's answer: in pieces of whatever size they come where it streams, else in one.

        Args:
            tried: ids of the replicas that the request has been with. They are not asked again, and more are added.

        Raises:
            Rejected: the engine refused the request.
            Failed: no replica can serve, or the one that did was lost halfway.
        """
        return self._carried(caller, prompt, request_id, tried, prompt.endpoint.value, prompt.body, prompt.stream)

    async def tokens(self, caller: Caller, prompt: Prompt, request_id: str, tried: Set[str], asked: bytes) -> int:
        """How many tokens there are in what ``asked``, a body for ``/tokenize``, holds. Raises as the answer does."""
        async with aclosing(
            self._carried(caller, prompt, request_id, set(tried), TOKENIZE, asked, stream=False)
        ) as answer:
            return int(json.loads(await anext(answer))["count"])

    async def _carried(
        self, caller: Caller, prompt: Prompt, request_id: str, tried: set[str], path: str, body: bytes, stream: bool
    ) -> AsyncGenerator[bytes, None]:
        ends = monotonic() + self._deadline_s
        failure: Exception = self._failed(Reason.COUNTRY_UNAVAILABLE, RETRY_AFTER_S)
        lost = 0
        while len(tried) < MAX_ATTEMPTS and lost < MAX_LOST and monotonic() < ends:
            replica = self._choose(caller, prompt, tried)
            if replica is None:
                break
            tried.add(replica.id)
            started = False
            try:
                async with self._asked(replica, caller, request_id, path, body, ends) as exchange:
                    if not stream:
                        yield await exchange.whole()
                        return
                    while data := await exchange.read():
                        started = True
                        yield data
                    return
            except Unreachable:
                self._table.avoid(replica)
            except Broken as error:
                self._table.avoid(replica)
                lost += 1
                if started:
                    raise self._failed(Reason.STREAM_INTERRUPTED) from error
            except Rejected as rejected:
                if rejected.status == _SERVICE_UNAVAILABLE:
                    failure = self._failed(Reason.SERVER_IS_OVERLOADED, OVERLOADED_RETRY_AFTER_S)
                elif rejected.status < 500:
                    raise
                else:
                    failure = rejected
                    lost += 1
        raise failure

    @asynccontextmanager
    async def _asked(
        self, replica: Replica, caller: Caller, request_id: str, path: str, body: bytes, ends: float
    ) -> AsyncIterator[Exchange]:
        """An exchange whose answer's head has come and is good. Leaving early aborts the generation."""
        with self._table.serving(replica, len(body) // _BYTES_PER_TOKEN):
            exchange = await self._upstream.connect(replica.address)
            try:
                try:
                    await self._ask(exchange, caller, request_id, path, body, ends - monotonic())
                except Broken:
                    if exchange.fresh:
                        raise
                    exchange = await self._again(replica)
                    await self._ask(exchange, caller, request_id, path, body, ends - monotonic())
                if exchange.status != 200:
                    raise Rejected(exchange.status, await exchange.whole(), replica.context_length)
                yield exchange
            finally:
                exchange.finish()

    async def _again(self, replica: Replica) -> Exchange:
        """A new connection, where a pooled one was found to have been closed meanwhile."""
        try:
            return await self._upstream.connect(replica.address, fresh=True)
        except Unreachable as error:
            # Somebody did listen there until this request came.
            raise Broken(str(error)) from error

    async def _ask(
        self, exchange: Exchange, caller: Caller, request_id: str, path: str, body: bytes, left_s: float
    ) -> None:
        now = time()
        claim = self._key.sign(
            Claim(
                country=caller.country,
                organisation=caller.organisation,
                request_id=f"{request_id}.{next(self._serial)}",
                service_class=caller.service_class,
                path=path,
                deadline=now + left_s,
                expiry=now + LIFETIME_S,
            )
        )
        head = (
            f"POST {path} HTTP/1.1\r\nhost: replica\r\ncontent-type: application/json\r\n"
            f"x-request-id: {request_id}\r\n{HEADER}: {claim}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        await exchange.ask(head.encode("ascii"), body, left_s)

    def _failed(self, reason: Reason, retry_after_s: int | None = None) -> Failed:
        return Failed(reason, retry_after_s=retry_after_s, country=self._country.upper())
