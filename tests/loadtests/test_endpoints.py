"""What is said of an endpoint that cannot be load tested, before anything is sent."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from loadtests.running import endpoints
from loadtests.running.endpoints import complaints
from loadtests.targets import Targets

MODELS = json.dumps({"object": "list", "data": [{"id": "smollm2-135m-instruct"}]})


@contextmanager
def answering(status: int, body: str, kind: str = "application/json") -> Iterator[tuple[str, list[str | None]]]:
    """A server that says the same to everybody, its URL, and the keys it was shown."""
    keys: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers["authorization"])
            self.send_response(status)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", keys
        finally:
            server.shutdown()
            thread.join()


def targets(url: str, *, model: str = "smollm2-135m-instruct", ca: str | None = None) -> Targets:
    organisations = [{"id": "acme", "key": "sk-ee-secret"}, {"id": "other", "key": "sk-ee-other"}]
    country = {"code": "ee", "base_url": url, "model": model, "organisations": organisations, "ca": ca}
    return Targets.model_validate({"sides": [{"name": "domicile", "countries": [country]}]})


def complaint(url: str, **options: Any) -> str:
    (found,) = complaints(targets(url, **options), ["ee"])
    assert found.startswith(f"ee of domicile ({url}): ")
    assert "\n" not in found
    assert "secret" not in found
    return found


@pytest.mark.parametrize("suffix", ["", "/v1", "/v1/"])
def test_one_that_has_the_model_is_fit(suffix: str) -> None:
    with answering(200, MODELS) as (url, keys):
        assert complaints(targets(url + suffix), ["ee"]) == ()
    assert keys == ["Bearer sk-ee-secret"]


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (200, "<html>It works!</html>", "text/html; charset=utf-8", "web page (HTML)"),
        (404, "<!doctype html>", "text/plain", "web page (HTML)"),
        (404, "Not Found", "text/plain", "answers GET /v1/models with 404"),
        (401, '{"error": {}}', "application/json", "does not accept the key of 'acme' (401)"),
        (503, '{"error": {"message": "EE is down."}}', "application/json", "with 503: EE is down."),
        (200, "pong", "text/plain", "no list of models"),
        (200, '{"data": null}', "application/json", "no list of models"),
        (200, '{"data": [{"id": "smollm2-135m"}]}', "application/json", "did you mean 'smollm2-135m'?"),
        (200, '{"data": [{"id": "gpt"}]}', "application/json", "has no model 'smollm2-135m-instruct'; it has gpt"),
        (200, '{"data": []}', "application/json", "it has none"),
    ],
)
def test_what_does_not_answer_as_it_should_is_told_apart(status: int, body: str, kind: str, said: str) -> None:
    with answering(status, body, kind) as (url, _):
        assert said in complaint(url)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "connection refused" in complaint(f"http://127.0.0.1:{port}")


def test_a_name_that_is_nobody_s() -> None:
    assert "has no address" in complaint("http://nobody.invalid")


def test_one_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "PATIENCE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "did not answer within 0.1 s" in complaint(f"http://127.0.0.1:{listener.getsockname()[1]}")


def test_https_where_http_is_spoken() -> None:
    with answering(200, MODELS) as (url, _):
        assert "TLS handshake failed" in complaint(url.replace("http:", "https:"))


def test_an_authority_that_is_not_there() -> None:
    assert "its ca, /nowhere/ca.pem, cannot be read" in complaint("https://127.0.0.1:1", ca="/nowhere/ca.pem")


def test_a_country_that_the_targets_do_not_have() -> None:
    (found,) = complaints(targets("http://127.0.0.1:1"), ["kr"])
    assert found == "kr of domicile: the targets do not have it; they have ee"
