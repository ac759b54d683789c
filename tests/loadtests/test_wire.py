"""Whatever the network does to an answer, what it says is counted right, and how it ended is told right."""

from __future__ import annotations

import socket
import ssl
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from time import monotonic

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from loadtests.client.answer import Answer
from loadtests.client.pace import shares
from loadtests.client.wire import Left, Patience, Wire
from loadtests.record import Outcome

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-domicile-country: ee\r\n"
CHUNKED = STREAM + b"transfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def frame(event: object, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + (event if isinstance(event, bytes) else orjson.dumps(event)) + b"\n\n"


def token(text: str) -> bytes:
    return frame({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


def usage(tokens: int) -> bytes:
    details = {"cached_tokens": 4}
    counts = {"prompt_tokens": 7, "completion_tokens": tokens, "prompt_tokens_details": details}
    return frame({"choices": [], "usage": counts})


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


FINISH = frame({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
DONE = frame(b"[DONE]")
ROLE = frame({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
WHOLE = CHUNKED + b"".join(
    chunked(one) for one in (ROLE, token("Tere"), b": a comment\r\n\r\n", token(" päike"), token("!"), FINISH)
)
WHOLE += chunked(usage(3).replace(b"\n", b"\r\n") + DONE) + LAST


def read(*packets: bytes, stream: bool = True, lost: bool = False) -> Answer:
    answer = Answer(stream=stream)
    for now, packet in enumerate(packets):
        answer.feed(packet, float(now))
    if lost:
        answer.lost(float(len(packets)))
    return answer


def told(answer: Answer) -> tuple[object, ...]:
    tokens = answer.output_tokens
    first, gaps = answer.pace.counted(tokens)
    assert first + sum(count for _, count in gaps) == tokens
    return answer.outcome, answer.code, answer.terminals, tokens, "".join(answer.text), answer.finish_reason


@given(st.sets(st.integers(1, len(WHOLE) - 1)))
def test_an_answer_says_the_same_however_it_is_cut(cuts: set[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    answer = read(*(WHOLE[begin:end] for begin, end in pairwise(edges)))
    assert told(answer) == (Outcome.FINISHED, "", 1, 3, "Tere päike!", "length")
    assert answer.complete
    assert answer.reusable
    assert (answer.prompt_tokens, answer.cached_tokens) == (7, 4)


def test_every_packet_is_one_arrival_of_all_its_tokens() -> None:
    answer = read(
        CHUNKED,
        chunked(ROLE + token("a") + token("b")),
        chunked(token("c")),
        b"",
        chunked(token("d") + token("e")) + chunked(FINISH + usage(5) + DONE) + LAST,
    )
    assert answer.first == 1.0
    assert answer.pace.counted(5) == (2, ((1.0, 1), (2.0, 2)))


def test_several_tokens_in_one_event_are_counted_by_the_usage() -> None:
    events = [CHUNKED, chunked(token("a")), chunked(token(" few words at once")), chunked(token("b"))]
    answer = read(*events, chunked(FINISH + usage(6) + DONE) + LAST)
    assert answer.output_tokens == 6
    assert answer.pace.counted(6) == (1, ((1.0, 4), (1.0, 1)))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=50), st.integers(1, 200))
def test_tokens_are_spread_without_losing_one(lengths: list[int], tokens: int) -> None:
    counts = shares(array("L", lengths), tokens)
    assert sum(counts) == tokens
    assert min(counts) >= (1 if tokens >= len(lengths) else 0)
    assert counts[0] >= 1


def test_a_service_that_counts_nothing_is_counted_by_its_events() -> None:
    assert read(CHUNKED, chunked(token("a")), chunked(token("b") + DONE) + LAST).output_tokens == 2


def test_an_error_in_the_middle_is_a_failure_with_its_code() -> None:
    error = frame({"error": {"message": "gone", "type": "server_error", "code": "stream_interrupted"}})
    answer = read(CHUNKED, chunked(token("a")), chunked(error), LAST)
    assert (answer.outcome, answer.code, answer.terminals) == (Outcome.FAILED, "stream_interrupted", 1)
    assert answer.first == 1.0


@pytest.mark.parametrize(
    ("packets", "outcome", "code", "terminals"),
    [
        ((CHUNKED, chunked(token("a"))), Outcome.FAILED, "lost-connection", 1),
        ((CHUNKED[:20],), Outcome.FAILED, "lost-connection", 1),
        ((CHUNKED, chunked(token("a")), LAST), Outcome.FAILED, "no-end", 0),
        ((CHUNKED, chunked(token("a") + DONE)), Outcome.FINISHED, "", 1),
        ((CHUNKED, chunked(token("a") + DONE + token("b")), LAST), Outcome.FINISHED, "", 2),
        ((CHUNKED, chunked(token("a") + DONE), chunked(DONE), LAST), Outcome.FINISHED, "", 2),
        ((CHUNKED, chunked(frame(b'{"choices": [') + DONE), LAST), Outcome.FAILED, "malformed-json", 1),
        ((CHUNKED, chunked(frame({"odd": 1}) + DONE), LAST), Outcome.FAILED, "malformed-json", 1),
        ((STREAM + b"\r\n" + token("a") + DONE,), Outcome.FINISHED, "", 1),
        ((b"SMTP is not HTTP\r\n\r\n",), Outcome.FAILED, "malformed-http", 0),
    ],
)
def test_how_a_stream_ends(packets: tuple[bytes, ...], outcome: Outcome, code: str, terminals: int) -> None:
    answer = read(*packets, lost=True)
    assert (answer.outcome, answer.code, answer.terminals) == (outcome, code, terminals)


def body(status: int, content: bytes, kind: str = "application/json", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(content)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def problem(code: str | None) -> bytes:
    return orjson.dumps({"error": {"message": "no", "type": "some_error", "param": None, "code": code}})


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        (body(429, problem("rate_limit_exceeded")), Outcome.REFUSED, "rate_limit_exceeded"),
        (body(401, problem("incorrect_hostname")), Outcome.REFUSED, "incorrect_hostname"),
        (body(503, problem("server_is_overloaded")), Outcome.REFUSED, "server_is_overloaded"),
        (body(400, problem(None)), Outcome.REFUSED, "some_error"),
        (body(500, problem("internal_error")), Outcome.FAILED, "internal_error"),
        (body(502, problem("bad_gateway")), Outcome.FAILED, "bad_gateway"),
        (body(404, b"{}"), Outcome.FAILED, "http-404"),
        (body(503, b"busy", "text/plain"), Outcome.FAILED, "content-type"),
        (body(200, b"<!doctype html><p>It works!", "text/html"), Outcome.FAILED, "html"),
        (body(404, b"<html>nginx", "text/html"), Outcome.FAILED, "html"),
        (body(200, b'{"choices": ['), Outcome.FAILED, "malformed-json"),
        (body(200, b"[]"), Outcome.FAILED, "content-type"),
        (body(200, problem("odd")), Outcome.FAILED, "odd"),
    ],
)
def test_what_is_no_stream_is_refused_or_failed(answer: bytes, outcome: Outcome, code: str) -> None:
    found = read(answer)
    assert (found.outcome, found.code, found.terminals) == (outcome, code, 1)
    assert found.first is None


def test_a_refusal_says_when_to_come_again() -> None:
    found = read(body(503, problem("server_is_overloaded"), "application/json", "Retry-After: 2"))
    assert found.retry_after_s == 2.0


def test_an_answer_in_one_piece_is_first_and_last_at_once() -> None:
    content = {
        "choices": [{"message": {"content": "Tere"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    found = read(body(200, b"")[:30], body(200, orjson.dumps(content))[30:], stream=False)
    assert (found.outcome, found.terminals, found.output_tokens) == (Outcome.FINISHED, 1, 2)
    assert found.first == found.ended == 1.0


@pytest.mark.parametrize(
    ("kind", "outcome", "code"),
    [
        ("response.completed", Outcome.FINISHED, ""),
        ("response.incomplete", Outcome.FINISHED, ""),
        ("response.failed", Outcome.FAILED, "server_error"),
    ],
)
def test_a_response_ends_with_its_own_events(kind: str, outcome: Outcome, code: str) -> None:
    error = {"code": "server_error", "message": "gone"} if code else None
    response = {"status": "completed", "usage": {"input_tokens": 5, "output_tokens": 2}, "error": error}
    delta = "response.output_text.delta"
    answer = read(
        CHUNKED,
        chunked(frame({"type": "response.created", "response": {}}, "response.created")),
        chunked(frame({"type": delta, "delta": "a"}, delta)),
        chunked(frame({"type": delta, "delta": "b"}, delta)),
        chunked(frame({"type": kind, "response": response}, kind)),
        LAST,
    )
    assert (answer.outcome, answer.code, answer.terminals) == (outcome, code, 1)
    assert (answer.prompt_tokens, answer.output_tokens) == (5, 2)
    assert answer.pace.counted(2) == (1, ((1.0, 1),))


def test_thoughts_and_calls_are_tokens_too() -> None:
    thought = frame({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]})
    call = {"index": 0, "function": {"name": None, "arguments": '{"a"'}}
    answer = read(CHUNKED, chunked(thought), chunked(frame({"choices": [{"delta": {"tool_calls": [call]}}]}) + DONE))
    assert answer.output_tokens == 2


Say = Callable[[socket.socket], None]


@contextmanager
def server(*says: Say) -> Iterator[tuple[Wire, list[socket.socket]]]:
    """One connection after another, each served by one of ``says``."""
    seen: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for say in says:
                client, _ = listener.accept()
                seen.append(client)
                say(client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        wire = Wire(f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield wire, seen
        wire.close()
        thread.join(5)
        for client in seen:
            client.close()


def answers(*packets: bytes) -> Say:
    def say(client: socket.socket) -> None:
        for packet in packets:
            assert client.recv(65536)
            client.sendall(packet)

    return say


def ask(wire: Wire, *, within_s: float = 5.0, events: int | None = None) -> Answer:
    answer = Answer(stream=True)
    request = wire.head("/v1/chat/completions", "sk-1", 2) + b"{}"
    wire.ask(wire.connect(), request, answer, Patience(monotonic() + within_s, events))
    return answer


def test_a_connection_is_used_again() -> None:
    with server(answers(WHOLE, WHOLE, WHOLE)) as (wire, seen):
        assert [ask(wire).outcome for _ in range(3)] == [Outcome.FINISHED] * 3
        assert len(seen) == 1


def test_an_idle_connection_that_was_closed_is_not_used_again() -> None:
    def once(client: socket.socket) -> None:
        answers(WHOLE)(client)
        client.close()

    with server(once, answers(WHOLE)) as (wire, seen):
        assert ask(wire).outcome is Outcome.FINISHED
        assert said_last(wire) == b""
        assert ask(wire).outcome is Outcome.FINISHED
        assert len(seen) == 2


def said_last(wire: Wire) -> bytes:
    """What an idle connection has to say; waits for it."""
    _, sock = wire._idle[-1]
    sock.settimeout(5)
    return sock.recv(1, socket.MSG_PEEK)


def test_a_request_has_a_key_and_a_length() -> None:
    head = Wire("http://[::1]:9233").head("/v1/completions", "sk-1", 12)
    assert head.startswith(b"POST /v1/completions HTTP/1.1\r\nhost: [::1]:9233\r\n")
    assert b"\r\nauthorization: Bearer sk-1\r\n" in head
    assert head.endswith(b"\r\ncontent-length: 12\r\n\r\n")


def certificate(folder: Path) -> Path:
    """A key and its own certificate for the loopback address, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ee.example")])
    now = datetime.now(UTC)
    own = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    own = own.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = own.add_extension(names, critical=False).sign(key, hashes.SHA256())
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = signed.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, *form)
    path = folder / "own.pem"
    path.write_bytes(pem)
    return path


def test_tls_trusts_the_certificate_that_it_is_given_and_no_other(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def say(client: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(client, server_side=True) as secured:
            answers(WHOLE)(secured)

    with server(say, say) as (plain, _):
        known = Wire(f"https://{plain.authority}", pem)
        assert ask(known).outcome is Outcome.FINISHED
        known.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            Wire(f"https://{plain.authority}").connect()


def test_what_does_not_come_in_time_has_failed() -> None:
    with server(answers(CHUNKED + chunked(token("a")))) as (wire, _):
        answer = ask(wire, within_s=0.05)
    assert (answer.outcome, answer.code, answer.terminals) == (Outcome.FAILED, "timeout", 0)


def test_a_client_that_has_read_enough_leaves() -> None:
    with server(answers(CHUNKED + chunked(token("a")) + chunked(token("b")))) as (wire, seen):
        answer = ask(wire, events=2)
        assert (answer.outcome, answer.code) == (Outcome.ABORTED, "left")
        seen[0].settimeout(5)
        assert seen[0].recv(1) == b""


def test_a_run_that_ends_marks_what_is_under_way() -> None:
    def leave(sock: socket.socket, feed: object, until: float) -> str:
        raise Left

    with server(answers(b"")) as (wire, _):
        wire = Wire(f"http://{wire.authority}", read=leave)
        answer = Answer(stream=True)
        with pytest.raises(Left):
            wire.ask(wire.connect(), b"POST / HTTP/1.1\r\n\r\n", answer, Patience(monotonic() + 5))
    assert (answer.outcome, answer.code) == (Outcome.ABORTED, "run-ended")
