"""A replica's private listener: an engine's application behind a path allow-list and the claim (R4).

Knows no Ray: :mod:`serving.replicas.deployment` places it, tests start it directly.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from contextlib import suppress
from secrets import token_hex

import orjson
from starlette.types import Receive, Scope, Send

from serving.engine.port import METRICS, ClaimFacts, Engine, claimed
from serving.http.listener import Listener
from serving.records.refusals import Refusals
from serving.records.telemetry.logs import fault
from serving.records.telemetry.replica import Carried
from serving.records.telemetry.telemetry import Telemetry
from serving.replicas.cell import Cell
from serving.replicas.claim import HEADER, CellKey, Claim, ClaimRejected, Doorkeeper
from serving.types import SPENT, TOKENIZE, Address, Endpoint

log = logging.getLogger(__name__)

ALLOWED = frozenset({*(endpoint.value for endpoint in Endpoint), TOKENIZE, SPENT})
"""What is posted. But for the metrics, nothing else of vLLM's application (pausing, weights, …) is reachable."""

_PASSED = frozenset({b"content-type", b"content-length", b"x-request-id", b"transfer-encoding"})
_CLAIM = HEADER.encode()
_NO_PATH = "no such path on a replica"


class ReplicaServer:
    """Serves one engine to the gateways of one country, and to nobody else."""

    def __init__(
        self,
        engine: Engine,
        key: CellKey,
        country: str,
        refusals: Refusals,
        *,
        cell: Cell | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        """
        Args:
            refusals: where claims that were rejected are told, of the country's own journal.
            telemetry: who is told of the requests that their gateway traces.
        """
        self._refusals = refusals
        self._telemetry = telemetry
        self._engine = engine
        self._cell = cell or Cell()
        self._key = key
        self._door = Doorkeeper(key, country)
        self._listener: Listener | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.in_flight = 0
        self.draining = False

    async def start(self, host: str, port: int = 0) -> Address:
        """Start the engine, then listen."""
        await self._engine.start()
        self._listener = Listener(self, host=host, port=port)
        await self._listener.start()
        return Address(host, self._listener.port)

    async def drain(self, grace_s: float) -> bool:
        """Take no new requests and wait for those in flight. Returns whether all of them finished."""
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        return self.in_flight == 0

    async def stop(self) -> None:
        if self._listener is not None:
            await self._listener.stop()
            self._listener = None
        await self._engine.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (scope["method"], scope["path"]) == ("GET", METRICS):
            return await self._tell(scope, receive, send)
        if scope["method"] != "POST" or scope["path"] not in ALLOWED:
            return await _refuse(send, 404, _NO_PATH)
        claim = self._admitted(scope)
        if claim is None:
            return await _refuse(send, 403, "a valid claim of this country is required")
        if self._cell.strangers:
            return await _send(send, 503, self._cell.refusal())
        if scope["path"] == SPENT:
            return await self._account(claim, send)
        if self.draining:
            return await _refuse(send, 503, "this replica is draining")
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name in _PASSED]
        carried = self._carried(claim)
        facts = ClaimFacts(
            organisation=claim.organisation,
            request_id=claim.request_id,
            service_class=claim.service_class,
            deadline=claim.deadline,
            cache_salt=self._key.cache_salt(claim.organisation),
            weight=claim.weight,
            body_bytes=int(dict(scope["headers"]).get(b"content-length", b"0")),
            moments=carried.moments if carried else None,
        )
        self._enter()
        try:
            with claimed(facts):
                await self._ask_engine(scope, receive, carried.noting(send) if carried else send)
        finally:
            self._leave()
            if carried is not None:
                carried.end()

    async def _account(self, claim: Claim, send: Send) -> None:
        """What the claim's request has cost, also while draining."""
        usage = self._engine.spent(claim.request_id)
        if usage is None:
            await _refuse(send, 404, "no such request here")
        else:
            await _send(send, 200, orjson.dumps(usage.counts()))

    async def _tell(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The engine's metrics, also while draining: what is watched then is how the work ends.

        Whoever has no claim to them is not told that they are there. Nobody waits for them to be read.
        """
        if self._admitted(scope) is None:
            await _refuse(send, 404, _NO_PATH)
        else:
            await self._ask_engine({**scope, "headers": [], "query_string": b""}, receive, send)

    def _carried(self, claim: Claim) -> Carried | None:
        """The trace of the request, where it has one: it is believed, for it is in the claim."""
        trace = self._telemetry.carried_on(claim.trace) if self._telemetry is not None else None
        return Carried(trace) if trace is not None else None

    def _admitted(self, scope: Scope) -> Claim | None:
        token = dict(scope["headers"]).get(_CLAIM, b"").decode("latin-1")
        try:
            return self._door.admit(token, scope["path"], time.time())
        except ClaimRejected as rejection:
            # Whoever sent it is nobody that could be named, and what it says of itself is not to be believed.
            self._refusals.note(f"req_{token_hex(16)}", "r4", rejection.reason, status=403)
            return None

    async def _ask_engine(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._engine.app(scope, receive, send)
        except Exception as error:
            # Where, but not what: an error's text may quote a prompt (R7). The listener sees an answer left undone.
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error(
                "%s from the engine at %s:%s", type(error).__name__, place.filename, place.lineno, extra=fault(error)
            )

    def _enter(self) -> None:
        self.in_flight += 1
        self._idle.clear()

    def _leave(self) -> None:
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()


async def _refuse(send: Send, status: int, message: str) -> None:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": status}
    await _send(send, status, orjson.dumps({"error": error}))


async def _send(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
