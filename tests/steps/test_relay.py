"""Whom the relay asks, how often, and in whose name. Against replicas that do as they are told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from time import monotonic

import pytest

from serving.engine.turnaway import OVER_SHARE, OVERLOADED, Turnaway
from serving.errors import DomicileError, Reason
from serving.placement import Replica
from serving.replicas.claim import CellKey, Claim
from serving.replicas.errand import Errand
from serving.replicas.table import Table
from serving.replicas.upstream import Exchange, Rejected, Upstream
from serving.steps.choose import Chooser
from serving.steps.relay import MAX_ATTEMPTS, MAX_LOST, Relay
from serving.types import Address, Caller, Endpoint, Prompt, ServiceClass

KEY = CellKey(b"k" * 32)
CALLER = Caller("ee", "acme", "k1", ServiceClass.BATCH, None)
CLAIM = re.compile(rb"x-domicile-claim: (\S+)")
REQUEST_ID = re.compile(rb"x-request-id: (\S+)")

Says = Callable[[int], bytes | None]
"""What a replica says to its n-th request; ``None`` closes the connection instead."""


BODY = b'{"model": "m", "messages": []}'


def errand(*, stream: bool = False, tried: dict[str, Replica] | None = None, within_s: float = 5) -> Errand:
    prompt = Prompt(Endpoint.CHAT, "m", stream, False, BODY, {"model": "m", "messages": []})
    return Errand(CALLER, prompt, "req_1", monotonic() + within_s, {} if tried is None else tried)


def says(status: int, body: bytes = b"hello") -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


class Crowd:
    """Replicas of one country, a relay before them, and what they were asked."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.ends_after: bytes | None = None
        self.table = Table()
        self.relay = Relay(Chooser("ee", self.table), self.table, Upstream(), KEY, "ee")

    @property
    def claims(self) -> list[Claim]:
        return [KEY.verify(found.decode()) for head in self.heads for found in CLAIM.findall(head)]

    async def serve(self, say: Says, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.rpartition(b"content-length: ")[2]))
                self.heads.append(head)
                said = say(len(self.heads))
                if said is None:
                    break
                writer.write(said)
                if said == self.ends_after:
                    break
        writer.close()

    async def answer(
        self, *, stream: bool = False, tried: dict[str, Replica] | None = None, within_s: float = 5
    ) -> bytes:
        async with aclosing(self.relay(errand(stream=stream, tried=tried, within_s=within_s))) as found:
            return b"|".join([data async for data in found])


@asynccontextmanager
async def crowd(*replicas: Says) -> AsyncIterator[Crowd]:
    found, servers, known = Crowd(), [], []
    for number, say in enumerate(replicas):
        server = await asyncio.start_server(partial(found.serve, say), "127.0.0.1", 0)
        servers.append(server)
        address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        known.append(Replica(f"r{number}", "ee", "m", address, context_length=99))
    found.table.report("m", tuple(known))
    try:
        yield found
    finally:
        for server in servers:
            server.close()


async def test_a_claim_says_who_asks_what_until_when() -> None:
    async with crowd(lambda _: says(200)) as found:
        assert await found.answer() == b"hello"
        (claim,) = found.claims
    assert (claim.country, claim.organisation, claim.path) == ("ee", "acme", "/v1/chat/completions")
    assert claim.service_class is ServiceClass.BATCH
    assert claim.request_id.startswith("req_1.")
    assert claim.deadline <= claim.expiry


async def test_a_connection_found_stale_is_replaced_and_the_claim_with_it() -> None:
    async with crowd(lambda count: None if count == 2 else says(200)) as found:
        assert await found.answer() == b"hello"
        assert await found.answer() == b"hello"
        assert len({claim.request_id for claim in found.claims}) == 3
        assert {id_ for head in found.heads for id_ in REQUEST_ID.findall(head)} == {b"req_1"}
        assert found.table.models() == {"m"}, "nobody is to blame"


async def test_of_a_stale_connection_nothing_is_left() -> None:
    async with crowd(lambda count: None if count == 2 else says(200)) as found:
        await found.answer()
        await found.answer()
        gc.collect()
        assert len([one for one in gc.get_objects() if type(one) is Exchange]) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_503_is_asked_elsewhere_and_forgotten(stream: bool) -> None:
    async with crowd(*[lambda count: says(503) if count == 1 else says(200)] * 2) as found:
        assert await found.answer(stream=stream) == b"hello"
        assert len(found.heads) == 2
        assert all(replica.healthy for replica in found.table.replicas("m"))


async def test_with_503_everywhere_the_country_is_overloaded() -> None:
    async with crowd(*[lambda _: says(503)] * (MAX_ATTEMPTS + 2)) as found:
        with pytest.raises(DomicileError) as caught:
            await found.answer()
        assert caught.value.reason is Reason.SERVER_IS_OVERLOADED
        assert caught.value.retry_after_s
        assert len(found.heads) == MAX_ATTEMPTS


def turned_away(status: int, retry_after_s: float) -> bytes:
    return says(status, Turnaway(status, "over_share", retry_after_s).body())


async def test_one_that_turns_a_request_away_is_not_the_only_one() -> None:
    async with crowd(*[lambda count: turned_away(OVER_SHARE, 3.0) if count == 1 else says(200)] * 2) as found:
        assert await found.answer() == b"hello"
        assert all(replica.healthy for replica in found.table.replicas("m"))


async def test_turned_away_everywhere_the_caller_is_told_when_the_first_takes_it() -> None:
    replies = iter([turned_away(OVER_SHARE, 9.0), turned_away(OVERLOADED, 2.2), turned_away(OVER_SHARE, 4.0)])
    async with crowd(*[lambda _: next(replies)] * 3) as found:
        with pytest.raises(DomicileError) as caught:
            await found.answer()
        assert caught.value.reason is Reason.SERVER_IS_OVERLOADED
        assert caught.value.retry_after_s == 3, "never sooner than was said"


async def test_who_is_over_its_share_is_told_so() -> None:
    async with crowd(lambda _: turned_away(OVER_SHARE, 0.3)) as found:
        with pytest.raises(DomicileError) as caught:
            await found.answer(stream=True)
        assert caught.value.reason is Reason.RATE_LIMIT_EXCEEDED
        assert (caught.value.reason.wire.status, caught.value.retry_after_s) == (429, 1)


async def test_400_is_the_caller_s_and_is_asked_once() -> None:
    async with crowd(*[lambda _: says(400, b'{"error": 1}')] * 3) as found:
        with pytest.raises(Rejected) as caught:
            await found.answer()
        assert (caught.value.status, caught.value.body, caught.value.context_length) == (400, b'{"error": 1}', 99)
        assert len(found.heads) == 1


@pytest.mark.parametrize("said", [says(500), None])
async def test_what_ends_replicas_ends_no_more_than_two(said: bytes | None) -> None:
    async with crowd(*[lambda _: said] * 5) as found:
        with pytest.raises((Rejected, DomicileError)):
            await found.answer()
        assert len(found.heads) == MAX_LOST
        # One that answers is not left alone for what it answers: a caller could take all of them away that way.
        healthy = sum(replica.healthy for replica in found.table.replicas("m"))
        assert healthy == (5 if said else 5 - MAX_LOST)


async def test_a_whole_answer_that_breaks_off_was_no_answer() -> None:
    torn = says(200)[:-2]
    async with crowd(*[lambda count: torn if count == 1 else says(200)] * 2) as found:
        found.ends_after = torn
        assert await found.answer() == b"hello"
        assert len(found.heads) == 2


async def test_one_that_was_tried_is_not_asked_again() -> None:
    async with crowd(*[lambda _: says(200)] * 2) as found:
        tried: dict[str, Replica] = {}
        for _ in range(2):
            assert await found.answer(tried=tried) == b"hello"
        assert set(tried) == {"r0", "r1"}
        with pytest.raises(DomicileError) as caught:
            await found.answer(tried=tried)
        assert caught.value.reason is Reason.COUNTRY_UNAVAILABLE


async def test_tokens_are_counted_with_a_claim_for_that() -> None:
    async with crowd(lambda _: says(200, b'{"count": 7}')) as found:
        tried = {"r9": Replica("r9", "ee", "m", Address("127.0.0.1", 1))}
        assert await found.relay.tokens(errand(tried=tried), b"{}") == 7
        assert list(tried) == ["r9"]
        assert [claim.path for claim in found.claims] == ["/tokenize"]
        assert found.heads[0].startswith(b"POST /tokenize HTTP/1.1\r\n")


async def test_load_is_counted_while_it_is_there() -> None:
    async with crowd(lambda _: says(200)) as found:
        async with aclosing(found.relay(errand(stream=True))) as answer:
            await anext(answer)
            assert found.table.replicas("m")[0].outstanding_tokens == len(BODY) // 4
        assert found.table.replicas("m")[0].outstanding_tokens == 0


@pytest.mark.parametrize(
    ("said", "reason"), [(b"", Reason.SERVER_IS_OVERLOADED), (says(200)[:-1], Reason.STREAM_INTERRUPTED)]
)
async def test_one_that_takes_too_long_is_not_to_blame(said: bytes, reason: Reason) -> None:
    async with crowd(*[lambda _: said] * 3) as found:
        with pytest.raises(DomicileError) as caught:
            await found.answer(stream=True, within_s=0.2)
        assert caught.value.reason is reason
        assert len(found.heads) == 1
        assert all(replica.healthy for replica in found.table.replicas("m"))


async def test_after_the_deadline_nobody_is_asked() -> None:
    async with crowd(lambda _: says(200)) as found:
        with pytest.raises(DomicileError):
            await found.answer(within_s=0)
        assert found.heads == []
