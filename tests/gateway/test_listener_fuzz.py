"""Arbitrary bytes never hurt the listener."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.http.listener import ListenerLimits
from tests.gateway.wire import (
    CLOSE,
    GET,
    POST,
    SMUGGLED,
    House,
    answers,
    serve,
    talk,
)

WHOLE = [
    GET + b"\r\n",
    GET + CLOSE,
    GET.replace(b"1.1", b"1.0") + b"\r\n",
    GET + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    POST + b"Content-Length: 5\r\n\r\nhello",
    POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: t\r\n\r\n",
    POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    POST.replace(b"/ ", b"/early ") + b"Content-Length: 5\r\n\r\nhello",
    GET.replace(b"/ ", b"/silent ") + b"\r\n",
]
FRAGMENTS = [
    b"",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b":",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"hello",
    b"0\r\n\r\n",
    b"y" * 20_000,
    SMUGGLED,
]


@st.composite
def nearly_requests(draw: st.DrawFn) -> list[bytes]:
    """Valid requests, a few bytes of them replaced, cut into pieces."""
    sent = b"".join(draw(st.lists(st.sampled_from(WHOLE), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(sent)))
        sent = (
            sent[:at] + draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=3)) + sent[at + draw(st.integers(0, 3)) :]
        )
    cuts = sorted(draw(st.lists(st.integers(0, len(sent)), max_size=3)))
    return [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]


@dataclass(frozen=True)
class Elsewhere:
    """A listener in a thread and a loop of its own."""

    port: int
    house: House
    complaints: list[logging.LogRecord]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Elsewhere]:
    hasty = ListenerLimits(
        head_s=0.04, keep_alive_s=0.04, body_idle_s=0.04, body_s=0.2, stall_s=1, linger_s=0.04, head_bytes=1 << 14
    )
    ready: list[Elsewhere] = []
    started, done = threading.Event(), threading.Event()
    complaints: list[logging.LogRecord] = []
    ear = logging.Handler(logging.ERROR)
    ear.emit = complaints.append  # type: ignore[assignment,method-assign]
    logging.getLogger("asyncio").addHandler(ear)

    async def main() -> None:
        async with serve(limits=hasty) as (listener, house):
            ready.append(Elsewhere(listener.port, house, complaints))
            started.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main()))
    thread.start()
    started.wait(10)
    yield ready[0]
    done.set()
    thread.join()
    logging.getLogger("asyncio").removeHandler(ear)


@settings(max_examples=150, deadline=None)
@given(nearly_requests() | st.lists(st.binary(max_size=40), max_size=3))
def test_arbitrary_bytes_never_hurt_the_listener(elsewhere: Elsewhere, pieces: list[bytes]) -> None:
    asked = len(elsewhere.house.scopes)
    found = answers(talk(elsewhere.port, *pieces))
    begun = len(elsewhere.house.scopes) - asked
    refusals = [one for one in found if b"x-app" not in one.headers]
    assert len(found) - len(refusals) <= begun, "two answers for one request"
    assert refusals in ([], found[-1:]), "something was answered after a refusal"
    (healthy,) = answers(talk(elsewhere.port, GET + CLOSE))
    assert healthy.status == 200
    assert not elsewhere.complaints
