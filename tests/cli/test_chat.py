from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from serving.cli.chat import chat
from tests.tenants.test_country import MINIMAL

app = typer.Typer()
app.command()(chat)


def chunk(text: str) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]})


class Door(ThreadingHTTPServer):
    """A gateway that answers as it is told and remembers what it was asked."""

    daemon_threads = True
    status = 200
    frames: tuple[str, ...] = (chunk("Tal"), json.dumps({"choices": [], "usage": None}), chunk("linn"), "[DONE]")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[tuple[str | None, dict[str, object]]] = []


class Answer(BaseHTTPRequestHandler):
    server: Door

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.headers["authorization"], json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()
        if self.server.status == 200:
            self.wfile.write("".join(f"data: {frame}\n\n" for frame in self.server.frames).encode())
        else:
            self.wfile.write(self.server.frames[0].encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def door() -> Iterator[Door]:
    with Door() as door:
        threading.Thread(target=door.serve_forever, args=(0.01,), daemon=True).start()
        yield door
        door.shutdown()


class Terminal:
    def __init__(self, root: Path, port: int) -> None:
        self.home, countries = root / "home", root / "countries"
        (countries / "ee").mkdir(parents=True)
        description = yaml.safe_dump({**MINIMAL, "gateway": {"port": port}})
        (countries / "ee" / "tenant.yaml").write_text(description, encoding="utf-8")
        self.env = {"DOMICILE_HOME": str(self.home), "DOMICILE_COUNTRIES": str(countries), "DOMICILE_KEY": ""}

    def run(self, *arguments: str, typed: str = "", key: str = "sk-test") -> Result:
        result = CliRunner().invoke(app, ["ee", *arguments], input=typed, env={**self.env, "DOMICILE_KEY": key})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result


@pytest.fixture
def terminal(tmp_path: Path, door: Door) -> Terminal:
    return Terminal(tmp_path, door.server_port)


def test_once_prints_the_answer_alone(terminal: Terminal, door: Door) -> None:
    result = terminal.run("--once", "Capital?")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Tallinn\n", "")
    ((authorization, body),) = door.asked
    assert authorization == "Bearer sk-test"
    assert body == {"model": "small", "messages": [{"role": "user", "content": "Capital?"}], "stream": True}


def test_a_conversation_remembers(terminal: Terminal, door: Door) -> None:
    result = terminal.run("--model", "other", typed="Capital?\n\nSure?\n")
    assert result.exit_code == 0
    assert [body["model"] for _, body in door.asked] == ["other", "other"]
    assert door.asked[1][1]["messages"] == [
        {"role": "user", "content": "Capital?"},
        {"role": "assistant", "content": "Tallinn"},
        {"role": "user", "content": "Sure?"},
    ]


def test_the_demo_key_is_used_when_no_other_is_given(terminal: Terminal, door: Door) -> None:
    assert terminal.run("--once", "Hi", key="").exit_code == 1
    path = terminal.home / "countries" / "ee" / "demo.key"
    path.parent.mkdir(parents=True)
    path.write_text("sk-demo\n", encoding="ascii")
    assert terminal.run("--once", "Hi", key="").exit_code == 0
    assert terminal.run("--once", "Hi", "--key", "sk-given", key="").exit_code == 0
    assert [authorization for authorization, _ in door.asked] == ["Bearer sk-demo", "Bearer sk-given"]


@pytest.mark.parametrize(
    ("status", "frames", "message"),
    [
        (401, ('{"error": {"message": "No.", "code": "invalid_api_key"}}',), "invalid_api_key: No."),
        (401, ('{"error": {"message": "No key.", "code": null}}',), "401: No key."),
        (502, ("<html>",), "502: Bad Gateway"),
        (200, (chunk("Tal"), '{"error": {"message": "Gone.", "code": "stream_interrupted"}}'), "interrupted: Gone."),
        (200, (chunk("Tal"),), "ended before it was complete"),
        (200, ("{",), "not what the API promises"),
        (200, ("[]",), "not what the API promises"),
    ],
)
def test_errors_are_shown_with_their_code(
    terminal: Terminal, door: Door, status: int, frames: tuple[str, ...], message: str
) -> None:
    door.status, door.frames = status, frames
    result = terminal.run("--once", "Hi")
    assert result.exit_code == 1
    assert message in result.stderr
    assert terminal.run(typed="Hi\n").exit_code == 0


def test_nobody_listens(tmp_path: Path) -> None:
    result = Terminal(tmp_path, 1).run("--once", "Hi")
    assert result.exit_code == 1
    assert "unreachable: http://127.0.0.1:1" in result.stderr


def test_an_answer_cannot_steer_the_terminal(terminal: Terminal, door: Door) -> None:
    door.frames = (chunk("\x1b[2Jtere\x9b31m\tõhtust\r\n"), "[DONE]")
    assert terminal.run("--once", "Hi").stdout == "[2Jtere31m\tõhtust\n\n"


def test_a_key_with_odd_characters_is_refused(terminal: Terminal, door: Door) -> None:
    for key in ("võti", "sk-a\r\nx-tenant: kr"):
        assert terminal.run("--once", "Hi", "--key", key).exit_code == 2
    assert not door.asked


def test_ctrl_c_stops_the_answer_not_the_chat(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Iterator[str]:
        yield "Tal"
        raise KeyboardInterrupt

    # The package's attribute of this name is the command.
    monkeypatch.setattr(sys.modules["serving.cli.chat"], "stream", interrupted)
    result = terminal.run(typed="Capital?\nSure?\n")
    assert result.exit_code == 0
    assert result.stdout.count("Tal …") == 2
