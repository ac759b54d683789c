from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from serving.cli.probe import answered, ready
from tenants.country import Country
from tests.tenants.test_country import MINIMAL


class Page(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def country() -> Iterator[Country]:
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Country.model_validate({**MINIMAL, "gateway": {"port": server.server_port}})
        server.shutdown()


def test_a_country_is_ready_when_its_address_says_so(country: Country, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ready(country)
    assert answered(country, "/other") == 404
    monkeypatch.setattr(Page, "status", 503)
    assert not ready(country)


def test_nobody_answers() -> None:
    country = Country.model_validate({**MINIMAL, "gateway": {"port": 1}})
    assert answered(country, "/readyz") is None
    assert not ready(country)
